"use strict";
// Who did what when: every actor's spans on one axis, and how busy each was.

((report) => {
  const { el, seconds, percent } = report;
  const LANE = 22, LEFT = 130;
  // Paul Tol's muted and bright schemes, which the colour-blind can tell apart.
  const COLOURS = ["#332288", "#88ccee", "#117733", "#ddcc77", "#cc6677", "#aa4499", "#44aa99", "#ee8866", "#882255", "#4477aa", "#999933", "#bbbbbb", "#66ccee", "#aa3377"];
  const clock = (time) => `${Math.floor(time / 60)}:${(time % 60).toFixed(time % 1 ? 1 : 0).padStart(time % 1 ? 4 : 2, "0")}`;

  const chart = (data) => {
    let [from, to] = [Math.max(0, data.seconds - Math.max(20, data.seconds / 12)), data.seconds];
    const canvas = el("canvas", { class: "lanes", tabindex: 0, role: "img", "aria-label": `Spans of ${data.actors.length} actors over ${seconds(data.seconds)}` });
    const told = el("p", { class: "quiet told" }, "Wheel or + and - zoom, drag or arrows move, double-click shows all.");
    const width = () => canvas.clientWidth - LEFT;
    const draw = () => {
      const ratio = devicePixelRatio || 1, height = LANE * data.actors.length + 24;
      canvas.style.height = `${height}px`;
      canvas.width = canvas.clientWidth * ratio; canvas.height = height * ratio;
      const ctx = canvas.getContext("2d");
      ctx.scale(ratio, ratio);
      ctx.font = "12px system-ui, sans-serif"; ctx.textBaseline = "middle"; ctx.fillStyle = report.colour("text");
      data.actors.forEach((actor, lane) => ctx.fillText(actor.slice(0, 18), 0, LANE * lane + LANE / 2));
      const scale = width() / (to - from);
      for (const [actor, phase, start, length] of data.spans) {
        if (start + length < from || start > to) continue;
        ctx.fillStyle = COLOURS[phase % COLOURS.length];
        const x = Math.max(start, from), end = Math.min(start + length, to);
        ctx.fillRect(LEFT + (x - from) * scale, LANE * actor + 3, Math.max(1, (end - x) * scale), LANE - 6);
      }
      ctx.fillStyle = report.colour("quiet"); ctx.textAlign = "center";
      for (let i = 0; i <= 4; i++) ctx.fillText(clock(Math.round(10 * (from + ((to - from) * i) / 4)) / 10), Math.min(canvas.clientWidth - 22, LEFT + (width() * i) / 4), height - 10);
    };
    const show = (a, b) => { const size = Math.min(data.seconds, Math.max(0.05, b - a)); from = Math.max(0, Math.min(a, data.seconds - size)); to = from + size; draw(); };
    const zoom = (factor, at = (from + to) / 2) => show(at - (at - from) * factor, at + (to - at) * factor);
    const timeAt = (event) => from + ((event.offsetX - LEFT) / width()) * (to - from);
    let drag = null;
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(event.deltaY > 0 ? 1.25 : 0.8, timeAt(event)); }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => { drag = [event.offsetX, from, to]; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointerup", () => { drag = null; });
    canvas.addEventListener("dblclick", () => show(0, data.seconds));
    canvas.addEventListener("pointermove", (event) => {
      if (drag) { const by = ((drag[0] - event.offsetX) / width()) * (drag[2] - drag[1]); show(drag[1] + by, drag[2] + by); return; }
      const lane = Math.floor(event.offsetY / LANE), time = timeAt(event);
      const span = data.spans.find(([actor, , start, length]) => actor === lane && time >= start && time <= start + length);
      if (span) told.textContent = `${data.actors[span[0]]}: ${data.phases[span[1]]}, ${span[3].toFixed(2)} s${span[4] === null ? "" : `, step ${span[4]}`}`;
    });
    canvas.addEventListener("keydown", (event) => {
      const by = (to - from) / 5;
      const act = { "+": () => zoom(0.7), "-": () => zoom(1.4), ArrowLeft: () => show(from - by, to - by), ArrowRight: () => show(from + by, to + by) }[event.key];
      if (act) { event.preventDefault(); event.stopPropagation(); act(); }
    });
    requestAnimationFrame(draw);
    report.redrawTimeline.push(draw);
    return el("div", {}, el("p", { class: "key" }, data.phases.map((phase, i) => el("span", {}, el("i", { class: "swatch", style: `background: ${COLOURS[i % COLOURS.length]}` }), phase))), canvas, told,
      data.left_out ? el("p", { class: "quiet" }, `${data.left_out} earlier spans are in spans.jsonl alone.`) : null);
  };

  const busy = (data) => el("table", { class: "busy" }, el("caption", {}, `Busy seconds of ${seconds(data.seconds)}, by phase`), el("tbody", {}, Object.entries(data.busy).map(([actor, phases]) => {
    const total = Object.values(phases).reduce((a, b) => a + b, 0);
    return el("tr", {}, el("th", { scope: "row" }, actor), el("td", {}, el("div", { class: "stack" }, Object.entries(phases).map(([phase, spent]) =>
      el("i", { style: `width: ${(100 * spent) / data.seconds}%; background: ${COLOURS[data.phases.indexOf(phase) % COLOURS.length]}`, title: `${phase}: ${seconds(spent)}` })))), el("td", { class: "number" }, `${percent(total / data.seconds)} %`));
  })));

  report.redrawTimeline = [];
  addEventListener("resize", () => report.redrawTimeline.forEach((draw) => draw()));
  report.views.timeline = {
    title: "Timeline",
    async draw(host) {
      report.redrawTimeline = [];
      const all = await report.loadAll("timeline");
      all.forEach((data, run) => host.append(el("section", { class: "card" }, el("div", { class: "card-head" }, report.runMark(run), el("h2", {}, report.head.runs[run].name)),
        ...(data && data.spans.length ? [chart(data), busy(data)] : [el("p", { class: "quiet" }, "No spans were recorded.")]))));
    },
  };
})(window.report);
