"use strict";
// The frame: tabs, the view that the address names, keys, the theme.

((report) => {
  const { el } = report;
  const order = ["overview", "curves", "samples", "timeline", "system"];
  const host = document.getElementById("view"), tabs = document.getElementById("tabs");
  const KEYS = [["1 … 5", "views"], ["j k ↓ ↑", "next, previous sample"], ["space", "play the recording"], ["/", "search"], ["c", "copy the address of the sample"], ["t", "light or dark"], ["?", "this list"], ["Esc", "leave a field"]];
  let drawing = 0;

  const draw = async () => {
    const { view, values } = report.address();
    const name = report.views[view] ? view : "overview", mine = ++drawing;
    tabs.replaceChildren(...order.map((each, i) => el("a", { href: report.link(each), "aria-current": each === name ? "page" : null, title: `${i + 1}` }, report.views[each].title)));
    const fresh = el("div", { class: `inner ${name}` });
    report.stopCurves();
    host.replaceChildren(fresh);
    document.title = `${report.views[name].title}: ${report.head.runs.map((run) => run.name).join(" and ")}`;
    brand();
    try { await report.views[name].draw(fresh, values); } catch (error) {
      if (mine === drawing) fresh.append(el("p", { class: "note" }, `This view cannot be drawn: ${error.message}`));
      console.error(error);
    }
    document.body.dataset.ready = name; // for those who wait until it is drawn
  };

  const brand = () => document.getElementById("brand").replaceChildren(...report.head.runs.map((run, i) => el("span", { class: "brand-run" }, report.head.runs.length > 1 ? report.runMark(i) : null, run.name)),
    report.head.live ? el("span", { class: "live", title: "This page follows the run" }, "live") : "");

  const theme = (name) => {
    document.documentElement.dataset.theme = name;
    try { localStorage.setItem("rlcore-theme", name); } catch { /* a browser without storage */ }
    draw();
  };
  const flip = () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  const keys = document.getElementById("keys");
  keys.querySelector("dl").append(...KEYS.flatMap(([key, what]) => [el("dt", {}, key), el("dd", {}, what)]));
  document.getElementById("theme").addEventListener("click", flip);
  document.getElementById("help").addEventListener("click", () => keys.showModal());

  addEventListener("keydown", (event) => {
    const field = event.target.matches("input, select, textarea");
    if (event.key === "Escape" && field) { event.target.blur(); return; }
    if (field || event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
    if (event.key === " " && event.target.matches("button, summary, audio, a")) return;
    const { view } = report.address();
    if (order[Number(event.key) - 1]) report.go(order[Number(event.key) - 1]);
    else if (event.key === "?") keys.showModal();
    else if (event.key === "t") flip();
    else if (!report.views[view]?.key?.(event.key)) return;
    event.preventDefault();
  });

  let stored = null;
  try { stored = localStorage.getItem("rlcore-theme"); } catch { /* a browser without storage */ }
  document.documentElement.dataset.theme = stored || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  addEventListener("hashchange", draw);
  draw().then(() => report.watch(() => {
    // Who reads a sample or types is not disturbed: there the next visit shows what is new.
    brand();
    if (report.address().view !== "samples" && !document.activeElement?.matches("input")) { const top = scrollY; draw().then(() => scrollTo(0, top)); }
  }));
})(window.report);
