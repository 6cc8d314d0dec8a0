"""Installation of jpegsr; everything about the package that tools need to know is here or in pyproject.toml."""

import pathlib
import re
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "jpegsr" / "__init__.py").read_text(encoding="utf-8"))[1]
BATCH = ["apache-beam>=2.77,<3", "google-crc32c>=1.5"]  # the latter for the checksums of TFRecords
DOCS = ["mkdocs-material>=9.6,<10", "mkdocstrings[python]>=0.29"]
FAST = ["ai-edge-litert>=2.0", "openvino>=2025.2"]
QUANTIZE = [*FAST, "nncf>=2.17"]
NOTEBOOKS = ["matplotlib>=3.10"]
ONNX = ["onnx>=1.18", "onnxruntime>=1.22", "tf2onnx>=1.17,<2"]
WEB = ["gradio>=6,<7"]


class BuildWithSamples(build_py):
    """The package with the sample photos in it, which in a clone lie beside it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree(ROOT / "samples", pathlib.Path(self.build_lib, "jpegsr", "samples"), dirs_exist_ok=True)


setup(
    name="jpegsr",
    version=VERSION,
    description="Small, blocky JPEGs in, clean pictures at 1, 2, 3 or 4 times the size out",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["jpegsr", "jpegsr.*"]),
    package_data={"jpegsr": ["py.typed", *(f"shipped/*.{suffix}" for suffix in ("keras", "json", "xml", "bin", "tflite"))]},
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.5.1; platform_system != 'Windows'",  # prepared training data
        "importlib_resources>=6.0",  # needed, but not required, by tensorflow-datasets
        "keras>=3.15,<4",
        "numpy>=2.1,<3",
        "pillow>=11.3,<13",
        "psutil>=6.0",
        "pyvips[binary]>=3.2,<4",  # libvips, 8.16 or newer: photo files with all that is in them
        "tensorboard>=2.20,<2.22",  # tf.summary writes through it; TensorFlow no longer requires it
        "tensorflow>=2.21,<2.22",
        "tensorflow-datasets>=4.9.10,<5",
        "tensorflow-serving-api>=2.21,<2.22",  # requests to servers, and those that warm them up; brings grpcio
        "tqdm>=4.66",
    ],
    extras_require={
        "batch": BATCH,
        "cuda": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "docs": DOCS,
        "fast": FAST,
        "notebooks": NOTEBOOKS,
        "onnx": ONNX,
        "quantize": QUANTIZE,
        "web": WEB,
        "test": [
            *BATCH,
            *QUANTIZE,
            *ONNX,
            *WEB,
            *DOCS,
            *NOTEBOOKS,
            "jax>=0.6",
            "mypy>=1.15",
            "nbmake>=1.5",
            "playwright>=1.50",
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "ruff>=0.11",
            "scikit-image>=0.25",
            "scikit-learn>=1.6",  # of the sparse-coding systems in benchmarks
        ],
        "dev": ["pre-commit>=4.0"],
        "jax": ["jax>=0.6"],
    },
    cmdclass={"build_py": BuildWithSamples},
    entry_points={"console_scripts": ["jpegsr = jpegsr.cli.main:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Topic :: Multimedia :: Graphics",
    ],
)
