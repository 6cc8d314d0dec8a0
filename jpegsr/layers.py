"""The custom Keras layers: as few as can be, each registered so that a saved model loads in Keras' safe mode."""

import keras


@keras.saving.register_keras_serializable(package="jpegsr")
class CropLike(keras.layers.Layer):
    """Cut a picture at the right and bottom to the height and width of a reference.

    A strided convolution rounds odd sizes up; this undoes it, so that a model takes any height and width.

    Inputs: a pair of `[B, H', W', C]` and the reference `[B, H, W, D]`, with H' >= H and W' >= W.
    Output: `[B, H, W, C]`.
    """

    def call(self, inputs):
        picture, reference = inputs
        shape = keras.ops.shape(reference)
        return picture[:, : shape[1], : shape[2], :]

    def compute_output_shape(self, input_shape):
        picture, reference = input_shape
        return (picture[0], reference[1], reference[2], picture[3])
