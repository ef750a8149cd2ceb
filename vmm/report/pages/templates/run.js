"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const WIDE = 1000, HIGH = 60, COLUMNS = 250, NEAREST = 8;
  const SVG = "http://www.w3.org/2000/svg";
  document.querySelectorAll(".scripted").forEach(function (each) { each.hidden = false; });

  // The bars as arrays that can be searched: where a bin is, how many exits, the first of them, its place.
  const bars = data.bars.map(function (lane) {
    return data.kinds.filter(function (kind) { return lane[kind]; }).map(function (kind) {
      const flat = lane[kind], at = [], counts = [], firsts = [], places = [];
      let now = 0;
      for (let i = 0; i < flat.length; i += 4) {
        now += flat[i];
        at.push(now); counts.push(flat[i + 1]); firsts.push(flat[i + 2]); places.push(flat[i + 3]);
      }
      return { kind: kind, at: at, counts: counts, firsts: firsts, places: places };
    });
  });
  const lanes = Array.from(document.querySelectorAll(".lane svg"));
  if (lanes.length) { timeline(); }
  listing();

  function below(sorted, value) {
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < value) { low = middle + 1; } else { high = middle; }
    }
    return low;
  }
  function time(bin) {
    const ns = bin * data.span, whole = data.bins * data.span;
    const unit = whole >= 1e9 ? [1e9, "s"] : whole >= 1e6 ? [1e6, "ms"] : [1e3, "us"];
    return parseFloat((ns / unit[0]).toPrecision(5)) + " " + unit[1];
  }

  function timeline() {
    const here = document.getElementById("here"), axis = document.querySelector(".axis");
    let from = 0, to = data.bins, cursor = 0;
    const cursors = [], boxes = [];

    lanes.forEach(function (svg, index) {
      while (svg.lastChild) { svg.removeChild(svg.lastChild); }
      svg.paths = {};
      data.kinds.forEach(function (kind) {
        const path = document.createElementNS(SVG, "path");
        path.setAttribute("class", "k-" + kind);
        svg.appendChild(path);
        svg.paths[kind] = path;
      });
      const marks = document.createElementNS(SVG, "path");
      marks.setAttribute("class", "event");
      svg.appendChild(marks);
      svg.marks = marks;
      const box = document.createElementNS(SVG, "rect");
      box.setAttribute("class", "chosen");
      box.setAttribute("height", HIGH);
      box.setAttribute("visibility", "hidden");
      svg.appendChild(box);
      boxes.push(box);
      const line = document.createElementNS(SVG, "rect");
      line.setAttribute("class", "cursor");
      line.setAttribute("height", HIGH);
      line.setAttribute("visibility", "hidden");
      svg.appendChild(line);
      cursors.push(line);
      svg.setAttribute("tabindex", "0");
      svg.setAttribute("role", "application");  // its keys are its own: a screen reader hands them on
      svg.setAttribute("aria-describedby", "here");
      let began = null;
      function bin(event) {
        const frame = svg.getBoundingClientRect();
        const part = Math.min(Math.max((event.clientX - frame.left) / frame.width, 0), 0.999999);
        return from + part * (to - from);
      }
      svg.addEventListener("pointerdown", function (event) {
        if (event.pointerType === "touch") { show(index, bin(event)); return; }
        began = bin(event);
        svg.setPointerCapture(event.pointerId);
      });
      svg.addEventListener("pointermove", function (event) {
        const now = bin(event);
        show(index, now);
        if (began !== null) { choose(index, began, now); }
      });
      svg.addEventListener("pointerup", function (event) {
        if (began === null) { return; }
        const now = bin(event), low = Math.min(began, now), high = Math.max(began, now);
        began = null;
        boxes[index].setAttribute("visibility", "hidden");
        if (high - low > (to - from) / 100) { look(low, high); show(index, (low + high) / 2); }
      });
      svg.addEventListener("pointercancel", function () { began = null; boxes[index].setAttribute("visibility", "hidden"); });
      svg.addEventListener("wheel", function (event) {
        if (!event.ctrlKey) { return; }
        event.preventDefault();
        zoom(event.deltaY > 0 ? 2 : 0.5, bin(event));
      }, { passive: false });
      svg.addEventListener("focus", function () { show(index, cursor); });
      svg.addEventListener("keydown", function (event) {
        const step = (to - from) / COLUMNS;
        if (event.key === "ArrowRight") { next(index, 1, step); }
        else if (event.key === "ArrowLeft") { next(index, -1, step); }
        else if (event.key === "+" || event.key === "=") { zoom(0.5, cursor); show(index, cursor); }
        else if (event.key === "-") { zoom(2, cursor); show(index, cursor); }
        else if (event.key === "Home") { look(0, data.bins); show(index, 0); }
        else if (event.key === "Enter") { follow(index); }
        else { return; }
        event.preventDefault();
      });
    });

    function look(low, high) {
      const least = Math.min(NEAREST, data.bins);
      if (high - low < least) { const middle = (low + high) / 2; low = middle - least / 2; high = low + least; }
      const size = Math.min(high - low, data.bins);
      from = Math.min(Math.max(low, 0), data.bins - size);
      to = from + size;
      draw();
    }
    function zoom(factor, about) {
      const part = (about - from) / (to - from), size = (to - from) * factor;
      look(about - part * size, about - part * size + size);
    }
    function columns(lane) {
      return lane.map(function (each) {
        const sums = new Map();
        for (let i = below(each.at, Math.floor(from)); i < each.at.length && each.at[i] < to; i++) {
          const column = Math.max(Math.floor((each.at[i] - from) / (to - from) * COLUMNS), 0);
          sums.set(column, (sums.get(column) || 0) + each.counts[i]);
        }
        return { kind: each.kind, sums: sums };
      });
    }
    function draw() {
      const drawn = bars.map(columns);
      let top = 1;
      drawn.forEach(function (lane) {
        const sums = new Map();
        lane.forEach(function (each) {
          each.sums.forEach(function (count, column) { sums.set(column, (sums.get(column) || 0) + count); });
        });
        sums.forEach(function (count) { top = Math.max(top, count); });
      });
      const bar = WIDE / Math.min(COLUMNS, to - from);
      lanes.forEach(function (svg, index) {
        const filled = new Map();
        data.kinds.forEach(function (kind) { svg.paths[kind].setAttribute("d", ""); });
        (drawn[index] || []).forEach(function (each) {
          let d = "";
          each.sums.forEach(function (count, column) {
            const tall = Math.max(count / top * (HIGH - 2), 1.5), low = filled.get(column) || 0;
            d += "M" + (column * WIDE / COLUMNS).toFixed(1) + " " + (HIGH - low).toFixed(1) + "h" + (bar * 0.9).toFixed(1) +
              "v" + (-tall).toFixed(1) + "h" + (-bar * 0.9).toFixed(1) + "z";
            filled.set(column, low + tall);
          });
          svg.paths[each.kind].setAttribute("d", d);
        });
        let marks = "";
        data.marks.forEach(function (mark) {
          const at = mark[0] / data.span;
          if ((mark[1] === null || mark[1] === index) && at >= from && at <= to) {
            marks += "M" + ((at - from) / (to - from) * WIDE).toFixed(1) + " 0v6";
          }
        });
        svg.marks.setAttribute("d", marks);
      });
      const ticks = [0, 0.25, 0.5, 0.75].map(function (part) {
        const tick = document.createElement("span");
        tick.style.left = part * 100 + "%";
        tick.textContent = time(from + part * (to - from));
        return tick;
      });
      axis.replaceChildren.apply(axis, ticks);
    }
    function choose(index, one, other) {
      const low = (Math.min(one, other) - from) / (to - from) * WIDE, high = (Math.max(one, other) - from) / (to - from) * WIDE;
      boxes[index].setAttribute("x", low);
      boxes[index].setAttribute("width", high - low);
      boxes[index].setAttribute("visibility", "visible");
    }
    function around(index, bin) {
      const wide = (to - from) / COLUMNS, column = Math.floor((bin - from) / wide);
      const low = wide < 1 ? Math.floor(bin) : from + column * wide, high = low + Math.max(wide, 1);
      const found = (bars[index] || []).map(function (each) {
        let count = 0, first = -1, place = -1;
        for (let i = below(each.at, Math.floor(low)); i < each.at.length && each.at[i] < high; i++) {
          if (each.at[i] < low) { continue; }
          if (first < 0) { first = each.firsts[i]; place = each.places[i]; }
          count += each.counts[i];
        }
        return { kind: each.kind, count: count, first: first, place: place };
      }).filter(function (each) { return each.count; });
      return { low: low, high: high, found: found };
    }
    function show(index, bin) {
      cursor = Math.min(Math.max(bin, from), to - 1e-6);
      const seen = around(index, cursor);
      cursors.forEach(function (line, each) {
        line.setAttribute("visibility", each === index ? "visible" : "hidden");
        line.setAttribute("x", ((cursor - from) / (to - from) * WIDE).toFixed(1));
        line.setAttribute("width", 2);
      });
      const events = data.marks.filter(function (mark) {
        const at = mark[0] / data.span;
        return (mark[1] === null || mark[1] === index) && at >= seen.low && at < seen.high;
      }).slice(0, 3).map(function (mark) { return mark[2]; });
      const texts = seen.found.map(function (each) {
        const place = data.places[each.place];
        return each.count + " " + each.kind + (each.count === 1 ? " (exit " : " (the first is exit ") + each.first +
          (place ? ", " + place : "") + ")";
      });
      here.textContent = "vCPU " + index + ", " + time(seen.low) + " to " + time(seen.high) + ": " +
        (texts.join("; ") || "no exit") + (events.length ? "; " + events.join("; ") : "");
    }
    function next(index, way, step) {
      // to the next bar in that direction, else by a column
      let best = null;
      (bars[index] || []).forEach(function (each) {
        const far = Math.max(step, 1), edge = way > 0 ? Math.floor(cursor + far) : Math.floor(cursor - far) + 1;
        const i = way > 0 ? below(each.at, edge) : below(each.at, edge) - 1;
        const found = each.at[i];
        if (found !== undefined && (best === null || (way > 0 ? found < best : found > best))) { best = found; }
      });
      const to_ = best === null ? Math.min(Math.max(cursor + way * step, 0), data.bins - 0.5) : best + 0.5;
      if (to_ < from || to_ >= to) { const size = to - from; look(to_ - size / 2, to_ + size / 2); }
      show(index, to_);
    }
    function follow(index) {
      const firsts = around(index, cursor).found.map(function (each) { return each.first; });
      const row = firsts.length ? document.getElementById("exit-" + Math.min.apply(null, firsts)) : null;
      if (row) { row.tabIndex = -1; row.scrollIntoView({ block: "center" }); row.focus(); }
      else { here.textContent += firsts.length ? "; that exit is not in the list" : ""; }
    }
    const middle = function () { return (from + to) / 2; };
    document.getElementById("nearer").addEventListener("click", function () { zoom(0.5, middle()); });
    document.getElementById("farther").addEventListener("click", function () { zoom(2, middle()); });
    document.getElementById("before").addEventListener("click", function () { look(from - (to - from) / 2, to - (to - from) / 2); });
    document.getElementById("after").addEventListener("click", function () { look(from + (to - from) / 2, to + (to - from) / 2); });
    document.getElementById("everything").addEventListener("click", function () { look(0, data.bins); });
    draw();
  }

  function listing() {
    const find = document.getElementById("find"), count = document.getElementById("count");
    if (!find) { return; }
    const rows = Array.from(document.querySelectorAll("#exit-list tbody tr[id]")).map(function (row) {
      return { row: row, text: row.textContent.toLowerCase() };
    });
    find.addEventListener("input", function () {
      const word = find.value.trim().toLowerCase();
      let shown = 0;
      rows.forEach(function (each) {
        each.row.hidden = Boolean(word) && !each.text.includes(word);
        shown += each.row.hidden ? 0 : 1;
      });
      count.textContent = shown + " of " + rows.length + " listed exits";
    });
  }
})();
