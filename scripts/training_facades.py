"""Pictures of buildings: lines and windows that repeat, in perspective, of which collections of photographs have few.

A picture is a function of the seed, of its index and of the versions of Pillow and NumPy. A wall is drawn from the front,
larger than it is kept, lit, tilted, and put beside others before a sky.
"""

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
UNIT = 3  # pixels as they are drawn in one that is kept


def _color(random: np.random.Generator, colorfulness: float = 25) -> Color:
    """A muted colour of any brightness."""
    levels = np.clip(random.uniform(20, 240) + random.normal(0, colorfulness, 3), 0, 255)
    red, green, blue = (int(level) for level in levels)
    return red, green, blue


def _shaded(color: Color, factor: float) -> Color:
    red, green, blue = (int(min(level * factor, 255)) for level in color)
    return red, green, blue


class Wall:
    """One wall from the front.

    Attributes:
      random: the source of all choices.
      size: width and height, in pixels as they are drawn.
      color: of the wall, to which `trim`, that of frames and lines, and `glass` are chosen.
    """

    def __init__(self, random: np.random.Generator, size: tuple[int, int]):
        self.random, self.size = random, size
        self.color, self.trim, self.glass = _color(random), _color(random, 10), _color(random, 20)
        self.image = Image.new("RGB", size, self.color)
        self.draw = ImageDraw.Draw(self.image)

    def length(self, low: float, high: float) -> int:
        """A length between two, in pixels that are kept, short ones as often as long ones."""
        return max(1, round(UNIT * np.exp(self.random.uniform(np.log(low), np.log(high)))))

    def line_width(self) -> int:
        return self.length(0.5, 3)


def bricks(wall: Wall) -> None:
    """Courses of stones, each of a shade of its own, with joints between."""
    width, height, joint = wall.length(5, 40), wall.length(2, 16), max(1, wall.length(0.4, 1.5))
    contrast = wall.random.uniform(0.03, 0.2)
    for row, top in enumerate(range(0, wall.size[1], height)):
        for left in range(-(row % 2) * width // 2, wall.size[0], width):
            fill = _shaded(wall.color, wall.random.normal(1, contrast))
            wall.draw.rectangle((left, top, left + width - joint, top + height - joint), fill)


def stripes(wall: Wall) -> None:
    """Cladding, blinds or balconies: lines at equal distances, across, upright or slanting."""
    step, line, kind = wall.length(2, 24), wall.line_width(), wall.random.integers(3)
    line = min(line, step // 2 + 1)
    slant = int(wall.random.uniform(0.2, 1.5) * wall.size[1])
    for at in range(-slant, max(wall.size) + slant, step):
        ends = ((0, at, wall.size[0], at), (at, 0, at, wall.size[1]), (at, 0, at + slant, wall.size[1]))[kind]
        wall.draw.line(ends, wall.trim, line)


def window_grid(wall: Wall) -> None:
    """Windows in rows and columns, with frames, bars and panes of many shades."""
    random = wall.random
    width, height = wall.length(6, 70), wall.length(8, 80)
    share = random.uniform(0.35, 0.95, 2)
    bars = random.integers(0, 4, 2)
    frame, bar, spread = wall.line_width(), max(1, wall.line_width() // 2), random.uniform(0.02, 0.5)
    has_sills = random.random() < 0.4
    for top in range(int(random.integers(0, height)), wall.size[1], height):
        for left in range(int(width * (1 - share[0]) / 2), wall.size[0], width):
            right, bottom = left + int(width * share[0]), top + int(height * share[1])
            glass = _shaded(wall.glass, max(random.normal(1, spread), 0.1))
            wall.draw.rectangle((left, top, right, bottom), glass, wall.trim, frame)
            for x in np.linspace(left, right, bars[0] + 2)[1:-1]:
                wall.draw.line((float(x), top, float(x), bottom), wall.trim, bar)
            for y in np.linspace(top, bottom, bars[1] + 2)[1:-1]:
                wall.draw.line((left, float(y), right, float(y)), wall.trim, bar)
            if has_sills:
                wall.draw.rectangle((left - frame, bottom, right + frame, bottom + 2 * frame), _shaded(wall.trim, 0.8))


def _lit(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Brighter on one side than on the other, and a little grainy, as what is photographed."""
    levels = np.asarray(image, np.float32)
    height, width = levels.shape[:2]
    ramp = np.linspace(*random.uniform(0.6, 1.3, 2), width)[None] * np.linspace(*random.uniform(0.8, 1.2, 2), height)[:, None]
    grain = random.normal(0, random.uniform(0, 4), (height, width))
    return Image.fromarray(np.clip(levels * ramp[..., None] + grain[..., None], 0, 255).astype(np.uint8))


def _tilted(image: Image.Image, random: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """The picture in perspective or turned, and where it covers."""
    size = np.array(image.size, float)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size
    moved = corners + random.uniform(-0.2, 0.2, (4, 2)) * size * (random.random() < 0.8)
    rows, values = [], []
    for (x, y), (u, v) in zip(moved, corners, strict=True):  # each place of the result comes from one of the picture
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    coefficients = np.linalg.solve(np.array(rows), np.array(values)).tolist()
    mask = Image.new("L", image.size, 255)
    method, resampling = Image.Transform.PERSPECTIVE, Image.Resampling.BICUBIC
    return (image.transform(image.size, method, coefficients, resampling), mask.transform(image.size, method, coefficients))


def picture(seed: int, index: int) -> Image.Image:
    """One picture, RGB, 320 to 639 pixels wide and 320 to 559 high."""
    random = np.random.default_rng((seed, index))
    size = (UNIT * int(random.integers(320, 640)), UNIT * int(random.integers(320, 560)))
    image = _lit(Wall(random, size).image, random)  # the sky
    for number in range(int(random.integers(2, 5))):
        wall = Wall(random, size)
        for kind, share in ((bricks, 0.4), (stripes, 0.4), (window_grid, 0.8)):
            if random.random() < share:
                kind(wall)
        front, mask = _tilted(_lit(wall.image, random), random)
        left, top = (int(side * random.uniform(-0.6, 0.6)) if number else 0 for side in size)
        image.paste(front, (left, top), mask)
    return image.reduce(UNIT)
