# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages of --html: whole in one file, escaped, each reference met; and in a real Chromium, where there is one."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from tools.chromium import Chromium
from vmm.cli import main
from vmm.errors import UsageError
from vmm.report.pages.hosts import anchor, hosts_page

HOSTS = Path(__file__).resolve().parents[2] / "docs/hosts"
EVIL = "<script>alert('x')</script> & \"quoted\" \x1b[31m"
Document = dict[str, Any]


def host(name: str) -> Document:
    found: Document = json.loads((HOSTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


class Page(HTMLParser):
    """What a test asks of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.ids: Counter[str] = Counter()
        self.refers: set[str] = set()
        self.loads: list[str] = []
        self.seen: Counter[str] = Counter()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value or ""] += 1
            elif name in ("aria-controls", "aria-labelledby", "for"):
                self.refers |= set((value or "").split())
            elif name == "href" and (value or "").startswith("#"):
                self.refers.add((value or "")[1:])
            elif name in ("src", "href", "action", "data"):
                self.loads.append(f"{tag} {name}={value}")


def whole(text: str) -> Page:
    """A page that loads nothing, whose references are met and whose names are its own."""
    page = Page(text)
    assert not page.loads
    assert "@import" not in text
    assert not re.search(r"url\((?!['\"]?data:)", text)
    assert page.refers <= set(page.ids)
    assert max(page.ids.values()) == 1
    assert page.seen["h1"] == page.seen["main"] == page.seen["title"] == 1
    return page


def test_one_host_with_its_evidence() -> None:
    doc = host("vmx-6.1")
    text = hosts_page([("vmx-6.1", doc)], "pyvmm probe --html F")
    page = whole(text)
    rows = {f"feature-{anchor(row['name'])}" for row in doc["features"]}
    rows |= {f"topic-{anchor(row['name'])}" for row in doc["topics"]}
    assert rows <= set(page.ids)
    for row in doc["features"]:
        for name in row["evidence"]:
            assert f"<td>{str(escape(name)).replace('_', '_<wbr>')}</td>" in text
    assert "pyvmm probe --html F" in text


def test_what_is_missing_comes_first_with_its_reason() -> None:
    doc = host("software-backed")
    text = hosts_page([("here", doc)], "pyvmm")
    lacking = [row for row in (*doc["features"], *doc["topics"]) if row["verdict"] in ("inert", "absent", "unproven")]
    table = text[text.index("Not usable, and why") : text.index('id="the-hosts"')]
    assert f"Not usable, and why: {len(lacking)}" in table
    for row in lacking:
        assert str(escape(row["reason"])) in table
    assert "<details>" not in table
    assert table.index(">absent<") < table.index(">inert<")
    several = hosts_page([("here", doc), ("there", host("svm-7.2"))], "pyvmm")
    table = several[several.index("Not usable, and why") : several.index('id="the-hosts"')]
    assert '<th scope="col" role="columnheader">host</th>' in table
    assert "<details>" in table


def test_hosts_side_by_side() -> None:
    names = ["svm-6.1", "svm-7.2", "vmx-6.1"]
    text = hosts_page([(name, host(name)) for name in names], "pyvmm matrix")
    whole(text)
    head = re.search(r"<thead><tr><th scope=\"col\">feature</th>(.*?)</tr>", text)
    assert head
    assert re.findall(r">([^<]+)</th>", head[1]) == names
    assert 'data-state="differs"' in text


@pytest.mark.parametrize("where", ["reason", "summary", "evidence", "refusal", "deviation", "host", "name"])
def test_what_a_document_holds_is_text(where: str) -> None:
    doc = host("vmx-6.1")
    row = doc["features"][0]
    match where:
        case "evidence":
            row["evidence"] = {EVIL: EVIL}
        case "refusal":
            row["refusals"] = [{"kind": EVIL, "what": EVIL, "observed": EVIL}]
        case "deviation":
            row["deviations"] = [{"what": EVIL, "observed": EVIL, "expected": EVIL}]
        case "host":
            doc["host"]["text"] = EVIL
        case "name":
            doc["topics"][0]["name"] = EVIL
        case _:
            row[where] = EVIL
    text = hosts_page([(EVIL, doc)], EVIL)
    page = Page(text)
    assert page.seen["script"] == 1
    assert "alert('x')</script>" not in text
    assert "\x1b" not in text


def test_a_document_without_what_is_not_looked_at() -> None:
    doc = host("svm-6.1")
    for row in doc["features"] + doc["topics"]:
        for key in ("summary", "evidence", "payload", "deviations"):
            row.pop(key, None)
        row["refusals"] = [{key: each[key] for key in ("kind", "what", "observed")} for each in row["refusals"]]
    del doc["host"]["cpus"]
    whole(hosts_page([("x", doc)], "pyvmm"))


def test_a_document_of_something_else_is_refused() -> None:
    with pytest.raises(UsageError, match="not a document of `pyvmm probe --json`"):
        hosts_page([("x", {"schema": 1, "payload": "hello"})], "pyvmm")


def test_diff_and_baseline_say_first_what_differs(tmp_path: Path) -> None:
    a, b = str(HOSTS / "svm-6.1.json"), str(HOSTS / "svm-7.2.json")
    assert main(["diff", a, b, "--html", str(tmp_path / "d.html")]) == 0
    text = (tmp_path / "d.html").read_text(encoding="utf-8")
    whole(text)
    assert text.index("What changed") < text.index('class="matrix"')
    assert main(["baseline", a, b, "--require", "PV_EOI", "--html", str(tmp_path / "b.html")]) == 0
    text = (tmp_path / "b.html").read_text(encoding="utf-8")
    whole(text)
    assert "required: PV_EOI: all there" in text


def test_a_page_never_overwrites_what_it_is_made_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.json"
    file.write_text((HOSTS / "svm-6.1.json").read_text(encoding="utf-8"), encoding="utf-8")
    before = file.read_bytes()
    for words in (["matrix", str(file)], ["diff", str(file), str(HOSTS / "svm-7.2.json")], ["baseline", str(file)]):
        assert main([*words, "--html", str(file)]) == 2
    assert file.read_bytes() == before
    assert "would be overwritten" in capsys.readouterr().err
    assert main(["matrix", str(file), "--html", str(tmp_path / "no/such/folder.html")]) == 2


def test_in_a_browser_rows_fold_and_a_link_opens_one(chromium: Chromium) -> None:
    doc = host("vmx-6.1")
    text = hosts_page([("vmx-6.1", doc)], "pyvmm probe --html F")
    rows = len(doc["features"]) + len(doc["topics"])
    chromium.open(text, "#feature-STEAL_TIME", width=400)
    assert chromium.run("document.getElementById('count').textContent") == f"{rows} of {rows} rows"
    opened = "Array.from(document.querySelectorAll('tr.row button[aria-expanded=true]'), e => e.textContent)"
    assert chromium.run(opened) == ["STEAL_TIME"]
    assert chromium.run("document.querySelectorAll('tr.detail[hidden]').length") == rows - 1
    chromium.run("document.querySelector('tr.row button[aria-expanded=true]').focus()")
    chromium.press("Enter")
    assert chromium.run(opened) == []
    assert chromium.run("document.documentElement.scrollWidth") == 400
    assert not chromium.complaints


WHY_FITS = """Array.from(document.querySelectorAll('.stacked td:last-child'))
  .filter(e => e.getBoundingClientRect().right > innerWidth || !e.textContent.trim()).length"""


def test_in_a_browser_the_reasons_are_seen_at_400_pixels_and_a_table_stays_one(chromium: Chromium) -> None:
    """What is missing, and why, needs no scrolling aside; a screen reader still finds rows, cells and their heads."""
    chromium.open(hosts_page([("here", host("software-backed"))], "pyvmm"), width=400)
    assert chromium.run(WHY_FITS) == 0
    chromium.call("Accessibility.enable")
    nodes = chromium.call("Accessibility.getFullAXTree")["nodes"]
    seen = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    rows = [row for key in ("features", "topics") for row in host("software-backed")[key]]
    missing = sum(row["verdict"] not in ("works", "serviced", "advertised") for row in rows)
    assert ("table", f"Not usable, and why: {missing}") in seen
    assert {("columnheader", "what"), ("columnheader", "verdict"), ("columnheader", "why")} <= set(seen)
    assert ("rowheader", "PV_EOI") in seen
    assert all(name for role, name in seen if role in ("table", "region", "button", "link", "heading", "navigation"))
    chromium.call("Accessibility.disable")


WHERE_NAMES_BREAK = """(() => {
  const ends = new Set();
  for (const button of document.querySelectorAll(".matrix tbody button")) {
    const walker = document.createTreeWalker(button, NodeFilter.SHOW_TEXT), spot = document.createRange();
    let last = null;
    for (let node = walker.nextNode(); node; node = walker.nextNode())
      for (let i = 0; i < node.length; i++) {
        spot.setStart(node, i); spot.setEnd(node, i + 1);
        const at = spot.getBoundingClientRect(), sign = node.data[i];
        if (last && at.top > last.top + 5) ends.add(last.sign);
        last = { top: at.top, sign: sign };
      }
  }
  return Array.from(ends).sort().join("");
})()"""


@pytest.mark.parametrize("hosts", [1, 3])
def test_in_a_browser_a_long_name_breaks_between_its_words(chromium: Chromium, hosts: int) -> None:
    names = ("software-backed", "svm-6.1", "vmx-6.1")[:hosts]
    chromium.open(hosts_page([(name, host(name)) for name in names], "pyvmm"), width=400)
    assert set(chromium.run(WHERE_NAMES_BREAK)) <= {"_", " "}
    assert "_" in chromium.run(WHERE_NAMES_BREAK)


def test_a_diff_says_whom_it_compares_and_each_thing_once(tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    assert main(["diff", str(HOSTS / "vmx-6.1.json"), str(HOSTS / "svm-7.2.json"), "--html", str(page)]) == 1
    text = page.read_text(encoding="utf-8")
    assert "<h1>What changed from A to B</h1>" in text
    assert f"<dt>A</dt><dd>{HOSTS / 'vmx-6.1.json'}: Linux 6.1" in text
    assert "A: this host&#39;s KVM lacks KVM_CAP_GUEST_MEMFD (234)" in text
    assert text.count("deviates no more: argument: the bit with HLT exits disabled") == 1
    assert "works on /" not in text


def test_a_baseline_names_hosts_and_no_paths(tmp_path: Path) -> None:
    page = tmp_path / "baseline.html"
    assert main(["baseline", str(HOSTS / "vmx-6.1.json"), str(HOSTS / "svm-7.2.json"), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "<h3>1 vmx-6.1</h3>" in text
    assert str(HOSTS) not in text
    assert "deviation: PV_UNHALT on vmx-6.1: " in text


def test_in_a_browser_without_script_every_row_is_open(chromium: Chromium) -> None:
    chromium.open(hosts_page([("vmx-6.1", host("vmx-6.1"))], "pyvmm"), script=False)
    chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    assert chromium.run("document.querySelectorAll('tr.detail[hidden]').length") == 0
    assert chromium.run("document.querySelector('tr.detail').offsetHeight") > 0


def test_in_a_browser_a_script_that_fails_is_seen(chromium: Chromium) -> None:
    chromium.open("<!doctype html><title>x</title><script>no_such_thing();</script>")
    assert any("no_such_thing" in each for each in chromium.complaints)
    chromium.open("<!doctype html><title>x</title><img src='http://127.0.0.1:9/x.png'>")
    assert any("127.0.0.1" in each for each in chromium.complaints)
