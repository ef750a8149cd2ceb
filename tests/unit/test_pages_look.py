# SPDX-License-Identifier: GPL-2.0-or-later
"""The colours of the pages: text can be read on everything that it lies on, in light and in dark (WCAG 2.2, 1.4.3 and
1.4.11).
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

import vmm.report.pages

TEMPLATES = Path(vmm.report.pages.__file__).parent / "templates"
STYLE = (TEMPLATES / "style.css").read_text(encoding="utf-8")
TEXT, GRAPHIC = 4.5, 3.0
Colour = tuple[float, float, float]


def variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): ([^;]+);", block))


LIGHT = variables(re.search(r"(?s)^:root \{(.*?)\n\}", STYLE)[1])  # type: ignore[index]
DARK = LIGHT | variables(re.search(r"(?s)prefers-color-scheme: dark\) \{(.*?)\n\}", STYLE)[1])  # type: ignore[index]
SCHEMES = {"light": LIGHT, "dark": DARK}


def colour(text: str) -> Colour:
    if text.startswith("#"):
        digits = text[1:] if len(text) == 7 else "".join(2 * each for each in text[1:])
        return tuple(int(digits[at : at + 2], 16) for at in (0, 2, 4))  # type: ignore[return-value]
    return tuple(float(each) for each in text.split())  # type: ignore[return-value]


def luminance(of: Colour) -> float:
    parts = [each / 255 for each in of]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Colour, other: Colour) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure_is_the_known_one() -> None:
    assert contrast(colour("#000000"), colour("#fff")) == pytest.approx(21)
    assert contrast(colour("#777777"), colour("#ffffff")) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_can_be_read(scheme: str) -> None:
    values = {name: colour(value) for name, value in SCHEMES[scheme].items()}
    kinds = [name for name in values if name.startswith("k-")]
    assert len(kinds) == 7
    pairs = [*itertools.product(("text", "dim", "link", *kinds), ("ground", "raised"))]
    pairs += [(name, f"{name}-ground") for name in ("good", "half", "none", "bad")]
    pairs += [("text", "bad-ground"), ("dim", "bad-ground")]
    low = {pair: contrast(*(values[name] for name in pair)) for pair in pairs}
    assert {pair: value for pair, value in low.items() if value < TEXT} == {}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_over_the_heat_of_a_source_line_can_be_read(scheme: str) -> None:
    values = {name: colour(value) for name, value in SCHEMES[scheme].items()}
    shares = [float(each) for each in re.findall(r"rgb\(var\(--heat\) / (\.\d+)\)", STYLE)]
    assert len(shares) == 4
    for share in shares:
        over = tuple(share * h + (1 - share) * g for h, g in zip(values["heat"], values["ground"], strict=True))
        assert contrast(values["text"], over) >= TEXT  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_focus_and_drawings_are_seen(scheme: str) -> None:
    values = {name: colour(value) for name, value in SCHEMES[scheme].items()}
    for name in ("focus", "text", "dim", "link", "good", "half", "bad"):
        for ground in ("ground", "raised"):
            assert contrast(values[name], values[ground]) >= GRAPHIC, (name, ground)


def test_every_colour_is_one_of_the_measured() -> None:
    rest = re.sub(r"(?s):root \{.*?\}", "", STYLE)
    assert re.findall(r"#[0-9a-f]{3,8}\b", rest) == []
    used = set(re.findall(r"var\(--([\w-]+)\)", STYLE))
    assert used <= LIGHT.keys()


def test_no_template_writes_what_is_not_escaped() -> None:
    for template in TEMPLATES.iterdir():
        text = template.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", text), template.name
        assert "innerHTML" not in text, template.name
        assert "insertAdjacentHTML" not in text, template.name
        assert not re.search(r"\s(src|srcset|action)=|https?://(?!www\.w3\.org/2000/svg)", text), template.name
