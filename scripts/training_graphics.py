"""Pictures with text, charts, windows and line art, of which collections of photographs have next to none.

A picture is a function of the seed, of its index, of the fonts that come with Matplotlib and of Pillow's version. No layout is
taken from anywhere: words are random letters, everything else random shapes.
"""

import pathlib

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = sorted(
    path
    for path in (pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf")
    if path.name.startswith(("DejaVuSans", "DejaVuSerif", "STIXGeneral", "cmr10", "cmb10", "cmss10", "cmtt10"))
    and "Display" not in path.name
)
LETTERS = list("etaoinshrdlcumwfgypbvkjxqz")  # from the most to the least frequent in English
FREQUENCIES = 1 / np.arange(2, 28)
FREQUENCIES /= FREQUENCIES.sum()
Color = tuple[int, int, int]


def _contrast(first: Color, second: Color) -> float:
    """Difference in brightness, in levels."""
    return abs(float(np.dot(np.subtract(first, second), (0.3, 0.59, 0.11))))


class Canvas:
    """A picture that is drawn several times as large as it is kept, and what is random about it.

    Attributes:
      random: the source of all choices.
      size: width and height, in pixels as they are drawn.
      unit: pixels as they are drawn in one that is kept.
      paper, ink: colours of the ground and of what stands on it.
    """

    def __init__(self, random: np.random.Generator, unit: int):
        self.random = random
        self.unit = unit
        self.size = (unit * int(random.integers(320, 640)), unit * int(random.integers(320, 560)))
        self.paper, self.ink = self.contrasting_colors()
        self.image = Image.new("RGB", self.size, self.paper)
        self.draw = ImageDraw.Draw(self.image)
        if random.random() < 0.25:
            self._shade()

    def _shade(self) -> None:
        """A ground that goes over into another colour, from top to bottom."""
        end, weight = np.array(self.color()), np.linspace(0, self.random.uniform(0.2, 0.6), self.size[1])[:, None]
        column = np.rint((1 - weight) * np.array(self.paper) + weight * end).astype(np.uint8)
        self.image.paste(Image.fromarray(np.repeat(column[:, None], self.size[0], axis=1)))

    def color(self) -> Color:
        red, green, blue = (int(level) for level in self.random.integers(0, 256, 3))
        return red, green, blue

    def contrasting_colors(self) -> tuple[Color, Color]:
        """Half the time black on white or nearly so, or the reverse; else any two that differ clearly."""
        if self.random.random() < 0.5:
            light, dark = (int(level) for level in (self.random.integers(225, 256), self.random.integers(0, 50)))
            pair: tuple[Color, Color] = (light, light, light), (dark, dark, dark)
            return pair if self.random.random() < 0.75 else pair[::-1]
        while True:
            first, second = self.color(), self.color()
            if _contrast(first, second) > 80:
                return first, second

    def color_on_paper(self) -> Color:
        """Any that differs clearly from the ground."""
        while True:
            color = self.color()
            if _contrast(color, self.paper) > 60:
                return color

    def font(self, low: float, high: float) -> ImageFont.FreeTypeFont:
        """Any font at a size between two, in pixels that are kept, small ones as often as large ones."""
        size = self.unit * np.exp(self.random.uniform(np.log(low), np.log(high)))
        return ImageFont.truetype(FONTS[self.random.integers(len(FONTS))], round(size))

    def word(self) -> str:
        if self.random.random() < 0.1:
            return str(self.random.integers(0, 10 ** self.random.integers(1, 6)))
        letters = "".join(self.random.choice(LETTERS, p=FREQUENCIES, size=self.random.integers(1, 10)))
        change = (str.lower, str.lower, str.lower, str.title, str.upper)[self.random.integers(5)]
        return change(letters) + str(self.random.choice(["", "", "", "", ",", ".", ":", "?", "-"]))

    def words(self, number: int) -> str:
        return " ".join(self.word() for _ in range(number))

    def box(self, least: float = 0.15, most: float = 0.6) -> tuple[int, int, int, int]:
        """A rectangle anywhere, its sides between two shares of the picture's."""
        width, height = (int(side * self.random.uniform(least, most)) for side in self.size)
        left, top = (int(self.random.integers(0, side - part)) for side, part in zip(self.size, (width, height), strict=True))
        return left, top, left + width, top + height

    def line_width(self) -> int:
        return max(1, round(self.unit * self.random.choice([0.5, 1, 1, 2, 3, 5])))


def text_page(canvas: Canvas) -> None:
    """Text from edge to edge, as on a page or in an editor; sometimes with words in colours."""
    font, colored = canvas.font(9, 24), canvas.random.random() < 0.3
    step = round(sum(font.getmetrics()) * canvas.random.uniform(1.0, 1.5))
    margin = canvas.unit * int(canvas.random.integers(2, 30))
    for top in range(margin, canvas.size[1], step):
        left = margin + (step * int(canvas.random.integers(0, 4)) if colored else 0)
        last = canvas.size[0] * (canvas.random.uniform(0.2, 1) if canvas.random.random() < 0.3 else 1)
        while left < last:
            text = canvas.word() + " "
            fill = canvas.color_on_paper() if colored and canvas.random.random() < 0.5 else canvas.ink
            canvas.draw.text((left, top), text, fill, font)
            left += max(1, round(font.getlength(text)))


def slide(canvas: Canvas) -> None:
    """A title, points in large letters, and a chart."""
    random, margin = canvas.random, canvas.unit * int(canvas.random.integers(5, 40))
    title, font = canvas.font(24, 56), canvas.font(12, 30)
    canvas.draw.text((margin, margin), canvas.words(3), canvas.color_on_paper(), title)
    top = margin + sum(title.getmetrics())
    for _ in range(int(random.integers(2, 8))):
        canvas.draw.text((margin, top), random.choice(["\u2022 ", "- ", "", "1. "]) + canvas.words(6), canvas.ink, font)
        top += round(sum(font.getmetrics()) * random.uniform(1.0, 1.6))
    if random.random() < 0.7:
        chart(canvas)


def chart(canvas: Canvas) -> None:
    """Bars, curves or sectors in a frame, with numbers at them."""
    random, (left, top, right, bottom) = canvas.random, canvas.box(0.35, 0.8)
    fill, ink = canvas.contrasting_colors()
    canvas.draw.rectangle((left, top, right, bottom), fill, ink, canvas.line_width())
    font, number, kind = canvas.font(8, 16), int(random.integers(3, 9)), random.integers(3)
    heights = random.uniform(0.1, 0.95, number) * (bottom - top)
    step = (right - left) / number
    if kind == 0:
        for i, height in enumerate(heights):
            bar = (left + (i + 0.15) * step, bottom - height, left + (i + 0.85) * step, bottom)
            canvas.draw.rectangle(bar, canvas.color(), ink if random.random() < 0.5 else None)
            canvas.draw.text((bar[0], bar[1]), canvas.word(), ink, font)
    elif kind == 1:
        for row in np.linspace(top, bottom, 6):
            canvas.draw.line((left, row, right, row), ink, max(1, canvas.unit // 2))
            canvas.draw.text((left, row), str(random.integers(1000)), ink, font)
        for _ in range(int(random.integers(1, 4))):
            rows = bottom - random.uniform(0.1, 0.95, number) * (bottom - top)
            points = [(left + i * step, float(row)) for i, row in enumerate(rows)]
            canvas.draw.line(points, canvas.color(), canvas.line_width(), joint="curve")
    else:
        edges = np.sort(random.uniform(0, 360, number))
        for start, end in zip(edges, np.roll(edges, -1), strict=True):
            end += 360 if end < start else 0
            canvas.draw.pieslice((left, top, right, bottom), float(start), float(end), canvas.color(), ink)


def windows(canvas: Canvas) -> None:
    """Overlapping windows with bars, buttons and a table."""
    for _ in range(int(canvas.random.integers(2, 6))):
        left, top, right, bottom = canvas.box(0.3, 0.9)
        paper, ink = canvas.contrasting_colors()
        font, line = canvas.font(9, 18), canvas.line_width()
        row = round(1.4 * sum(font.getmetrics()))
        canvas.draw.rectangle((left, top, right, bottom), paper, ink, line)
        canvas.draw.rectangle((left, top, right, top + row), canvas.color(), ink, line)
        canvas.draw.text((left + row // 3, top + row // 8), canvas.words(2), ink, font)
        column = max(3 * row, (right - left) // int(canvas.random.integers(1, 6)))
        ruled, buttons = canvas.random.random() < 0.4, canvas.random.random() < 0.3
        for y in range(top + row, bottom - row, row):
            for x in range(left, right - column // 2, column):
                cell = (x, y, min(x + column, right), y + row)
                if ruled:
                    canvas.draw.rectangle(cell, None, ink, max(1, line // 2))
                if buttons and canvas.random.random() < 0.3:
                    canvas.draw.rounded_rectangle(cell, row // 3, canvas.color(), ink)
                canvas.draw.text((x + row // 4, y + row // 8), canvas.word(), ink, font)


def drawing(canvas: Canvas) -> None:
    """Shapes with outlines, flat or hatched, and curves, as in comics, maps and logos."""
    random = canvas.random
    for _ in range(int(random.integers(8, 40))):
        box, line = canvas.box(0.05, 0.5), canvas.line_width()
        fill = canvas.color() if random.random() < 0.6 else None
        kind = random.integers(5)
        if kind == 0:
            canvas.draw.ellipse(box, fill, canvas.ink, line)
        elif kind == 1:
            canvas.draw.rounded_rectangle(box, int(random.integers(0, 20)) * canvas.unit // 2, fill, canvas.ink, line)
        elif kind == 2:
            corners = np.array(box[:2]) + random.uniform(0, 1, (int(random.integers(3, 8)), 2)) * np.subtract(box[2:], box[:2])
            canvas.draw.polygon([(float(x), float(y)) for x, y in corners], fill, canvas.ink, line)
        elif kind == 3:
            for x in np.arange(box[0], box[2], canvas.unit * random.uniform(2, 12)):
                canvas.draw.line((x, box[1], x + random.uniform(-1, 1) * canvas.unit, box[3]), canvas.ink, line)
        else:
            canvas.draw.arc(box, *sorted(random.uniform(0, 360, 2)), canvas.ink, line)
    for _ in range(int(random.integers(0, 6))):
        place = [int(random.integers(0, side)) for side in canvas.size]
        canvas.draw.text((place[0] // 2, place[1]), canvas.words(3), canvas.color_on_paper(), canvas.font(12, 60))


KINDS = (text_page, slide, windows, drawing)


def picture(seed: int, index: int) -> Image.Image:
    """One picture, RGB, 320 to 639 pixels wide and 320 to 559 high.

    Its kind is drawn, too: every 20th picture, which training keeps out, would otherwise be of the same kind.
    """
    random = np.random.default_rng((seed, index))
    unit = int(random.choice([1, 2, 3]))
    canvas = Canvas(random, unit)
    KINDS[random.integers(len(KINDS))](canvas)
    return canvas.image.reduce(unit) if unit > 1 else canvas.image
