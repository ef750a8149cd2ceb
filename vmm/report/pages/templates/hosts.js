"use strict";
(function () {
  const rows = Array.from(document.querySelectorAll("tr.row")).map(function (row) {
    const button = row.querySelector("button");
    const detail = document.getElementById(button.getAttribute("aria-controls"));
    return { row: row, button: button, detail: detail, states: row.dataset.states.split(" "),
      text: (row.textContent + " " + detail.textContent).toLowerCase() };
  });
  const find = document.getElementById("find");
  const filters = Array.from(document.querySelectorAll("button[data-state]"));
  const count = document.getElementById("count");

  function open(each, wanted) {
    each.button.setAttribute("aria-expanded", String(wanted));
    each.detail.hidden = !wanted || each.row.hidden;
  }
  function select() {
    const word = find.value.trim().toLowerCase();
    const wanted = filters.filter(function (f) { return f.getAttribute("aria-pressed") === "true"; })
      .map(function (f) { return f.dataset.state.replace(" ", "-"); });
    let shown = 0;
    rows.forEach(function (each) {
      const fits = (!wanted.length || wanted.some(function (s) { return each.states.includes(s); })) &&
        (!word || each.text.includes(word));
      each.row.hidden = !fits;
      each.detail.hidden = !fits || each.button.getAttribute("aria-expanded") !== "true";
      shown += fits ? 1 : 0;
    });
    count.textContent = shown + " of " + rows.length + " rows";
  }
  function fragment() {
    const at = location.hash.slice(1);
    rows.forEach(function (each) {
      if (each.detail.id === at) { open(each, true); each.row.scrollIntoView(); each.button.focus(); }
    });
  }
  rows.forEach(function (each) {
    each.button.addEventListener("click", function () {
      open(each, each.button.getAttribute("aria-expanded") !== "true");
    });
  });
  filters.forEach(function (f) {
    f.addEventListener("click", function () {
      f.setAttribute("aria-pressed", String(f.getAttribute("aria-pressed") !== "true"));
      select();
    });
  });
  find.addEventListener("input", select);
  const all = document.getElementById("open-all");
  all.addEventListener("click", function () {
    const wanted = all.getAttribute("aria-pressed") !== "true";
    all.setAttribute("aria-pressed", String(wanted));
    rows.forEach(function (each) { open(each, wanted); });
  });
  window.addEventListener("hashchange", fragment);
  select();
  fragment();
})();
