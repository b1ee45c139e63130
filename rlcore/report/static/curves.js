"use strict";
// Curves that react: one metric a chart, a line a run, raw values pale behind their running mean.
// The cursor and the zoom are shared by all charts; a click shows the samples of that step.

((report) => {
  const { el, number } = report;
  const STEPS = [1, 2, 5].flatMap((digit) => [0, 1, 2, 3, 4, 5, 6].map((power) => digit * 10 ** power)).sort((a, b) => a - b);
  let smoothing = null; // steps in the running mean; null: a twentieth of the run
  let drawn = []; // charts on the page

  const runningMean = (values, window) => values.map((value, at) => {
    if (value === null || window < 2) return value;
    let sum = 0, count = 0;
    for (let i = Math.max(0, at - window + 1); i <= at; i++) if (values[i] !== null) { sum += values[i]; count++; }
    return sum / count;
  });
  const alpha = (colour, share) => `color-mix(in srgb, ${colour} ${100 * share}%, transparent)`;
  const windowOf = (count) => smoothing ?? Math.max(1, Math.round(count / 20));

  // Steps of all runs, and each run's values at them.
  const aligned = (all, metric) => {
    const steps = [...new Set(all.flatMap((each) => (each && each.values[metric] ? each.steps.filter((_, i) => each.values[metric][i] !== null) : [])))].sort((a, b) => a - b);
    const columns = all.map((each) => {
      if (!each || !each.values[metric]) return null;
      const at = new Map(each.steps.map((step, i) => [step, each.values[metric][i]]));
      return steps.map((step) => at.get(step) ?? null);
    });
    return { steps, columns };
  };

  // Where the gate on the reasoning reward opens: an index of its steps, at most 0 where it is open from the start.
  const opening = (each) => {
    const gate = each && each.values["ptr/gate"];
    if (!gate) return -1;
    const first = gate.findIndex((value) => value !== null), opens = gate.findIndex((value) => value > 0);
    return opens > first ? opens : -1;
  };

  // Marks of evaluations along the axis, and of the step at which the gate opens.
  const marks = (all) => (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    for (const each of all) {
      if (!each) continue;
      ctx.fillStyle = report.colour("quiet");
      for (const step of each.evaluated) {
        const x = plot.valToPos(step, "x", true);
        if (x >= bbox.left - 1 && x <= bbox.left + bbox.width + 1) { ctx.beginPath(); ctx.moveTo(x, bbox.top + bbox.height - 7); ctx.lineTo(x - 4, bbox.top + bbox.height); ctx.lineTo(x + 4, bbox.top + bbox.height); ctx.fill(); }
      }
      const opens = opening(each);
      if (opens > 0) {
        const x = plot.valToPos(each.steps[opens], "x", true);
        ctx.strokeStyle = report.colour("quiet"); ctx.setLineDash([3, 3]); ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke(); ctx.setLineDash([]);
      }
    }
    ctx.restore();
  };

  const share = (plot) => {
    const { min, max } = plot.scales.x;
    reset.hidden = false;
    for (const other of drawn) if (other !== plot && (other.scales.x.min !== min || other.scales.x.max !== max)) other.setScale("x", { min, max });
  };

  const isZoomed = (plot) => plot.scales.x.min > plot.data[0][0] || plot.scales.x.max < plot.data[0].at(-1);
  const onAxis = (tick, step) => {
    const size = Math.abs(tick);
    if (size >= 1e5 || (size > 0 && step < 1e-4)) return tick.toExponential(step < size / 9 ? 1 : 0);
    return tick.toFixed((String(Number(step.toPrecision(6))).split(".")[1] || "").length);
  };

  const seriesOf = (chart, steps, columns, smooth) => {
    const series = [{}], data = [steps];
    columns.forEach((values, run) => {
      if (!values) return;
      const colour = report.runColour(run);
      const step = chart.kind === "step", dots = chart.kind === "dots" || steps.length < 20;
      const paths = step ? uPlot.paths.stepped({ align: 1 }) : undefined;
      if (!step && !dots && smooth > 1) {
        series.push({ stroke: alpha(colour, 0.3), width: 1, points: { show: false }, spanGaps: true });
        data.push(values);
      }
      series.push({ stroke: colour, width: 2, paths, points: { show: dots, size: 6, fill: colour }, spanGaps: true, run });
      data.push(step || dots ? values : runningMean(values, smooth));
    });
    return { series, data };
  };

  const readout = (chart, steps, columns, element) => (at) => {
    const last = (values) => values.findLastIndex((value) => value !== null);
    element.replaceChildren(...(at === null || at === undefined ? [] : [el("span", { class: "quiet" }, `step ${steps[at]} `)]),
      ...columns.map((values, run) => values && el("span", { class: "value" }, columns.length > 1 ? report.runMark(run) : null, `${number(values[at ?? last(values)])} `)).filter(Boolean));
  };

  const draw = (box, chart, all) => {
    const { steps, columns } = aligned(all, chart.metric);
    const told = el("span", { class: "readout" });
    const canvas = el("div", { class: "plot", role: "img" });
    box.replaceChildren(el("div", { class: "chart-head" }, el("h3", {}, chart.title, chart.unit ? el("small", {}, ` ${chart.unit}`) : null), told), canvas);
    const tell = readout(chart, steps, columns, told);
    tell(null);
    const ends = columns.filter(Boolean).map((values) => values.filter((value) => value !== null)).map((values) => `${number(values[0])} to ${number(values.at(-1))}`);
    canvas.setAttribute("aria-label", `${chart.title}: ${ends.join("; ")}, over ${steps.length} values`);
    if (!steps.length) return null;
    const { series, data } = seriesOf(chart, steps, columns, windowOf(steps.length));
    const positive = chart.log && data.slice(1).every((values) => values.every((value) => value === null || value > 0));
    const axis = { stroke: report.colour("quiet"), font: "11px system-ui, sans-serif", grid: { stroke: report.colour("line"), width: 1 }, ticks: { show: false } };
    const plot = new uPlot({
      width: Math.max(200, box.clientWidth - 24), height: 150, legend: { show: false }, padding: [8, 14, 0, 0],
      scales: { x: { time: false }, y: positive ? { distr: 3 } : { range: (_, low, high) => low === high ? [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1] : uPlot.rangeNum(low, high, 0.1, true) } },
      axes: [{ ...axis, size: 24, incrs: STEPS }, { ...axis, size: 52, values: (_, ticks, __, ___, step) => ticks.map((tick) => (tick === null ? "" : onAxis(tick, step))) }],
      cursor: { sync: { key: "steps" }, y: false, points: { size: 7 }, drag: { x: true, y: false, dist: 5 }, bind: { dblclick: () => null } },
      hooks: { draw: [marks(all)], setCursor: [(p) => tell(p.cursor.idx)], setScale: [(p, key) => key === "x" && drawn.includes(p) && isZoomed(p) && share(p)] },
      series,
    }, data, canvas);
    let pressed = 0;
    plot.over.addEventListener("mousedown", (event) => { pressed = event.clientX; });
    plot.over.addEventListener("click", (event) => { // not the end of a drag, which zooms
      if (Math.abs(event.clientX - pressed) < 4 && plot.cursor.idx != null) report.go("samples", { step: steps[plot.cursor.idx] });
    });
    drawn.push(plot);
    return plot;
  };

  const lazily = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting && entry.target.drawNow) { entry.target.drawNow(); entry.target.drawNow = null; }
  }), { rootMargin: "300px" });

  const reset = el("button", { type: "button", class: "reset", hidden: true, onclick: () => {
    drawn.forEach((plot) => plot.setScale("x", { min: plot.data[0][0], max: plot.data[0].at(-1) }));
    reset.hidden = true;
  } }, "Show all steps");
  document.body.append(reset);
  report.stopCurves = () => { drawn.forEach((plot) => plot.destroy()); drawn = []; reset.hidden = true; };
  report.curvesKey = (all) => el("p", { class: "quiet curves-key" }, "Pale: each step; strong: running mean. ▲ evaluation. ",
    all.some((each) => opening(each) > 0) ? "Dotted: the gate opens. " : "", "Drag to zoom, click for the samples of a step.");
  addEventListener("resize", () => drawn.forEach((plot) => {
    const box = plot.root.closest(".chart");
    if (box) plot.setSize({ width: Math.max(200, box.clientWidth - 24), height: 150 });
  }));

  // Draws the charts that `wanted` takes, under their sections.
  report.drawCurves = async (host, wanted = () => true, headings = false) => {
    const all = await report.loadAll("metrics");
    const charts = [...new Map(all.filter(Boolean).flatMap((each) => each.charts).map((chart) => [chart.metric, chart])).values()].filter(wanted);
    for (const section of [...new Set(charts.map((chart) => chart.section))]) {
      const grid = headings ? el("div", { class: "charts" }) : host.querySelector(".charts") || host.appendChild(el("div", { class: "charts" }));
      if (headings) {
        const few = !["More", "Parts of rewards"].includes(section);
        host.append(el("details", { open: few, class: "section" }, el("summary", {}, el("h2", {}, section)), grid));
      }
      for (const chart of charts.filter((each) => each.section === section)) {
        const box = el("figure", { class: "chart card", "data-metric": chart.metric });
        box.drawNow = () => draw(box, chart, all);
        grid.append(box);
        lazily.observe(box);
      }
    }
    return charts.length;
  };

  report.views.curves = {
    title: "Curves",
    async draw(host) {
      const area = el("div");
      const redraw = async () => { report.stopCurves(); area.replaceChildren(); await report.drawCurves(area, wanted, true); };
      const search = el("input", { type: "search", placeholder: "Find a metric", "aria-label": "Find a metric", oninput: () => redraw() });
      const wanted = (chart) => `${chart.metric} ${chart.title}`.toLowerCase().includes(search.value.toLowerCase());
      const slider = el("input", { type: "range", min: 1, max: 50, value: smoothing ?? 6, "aria-label": "Steps in the running mean",
        onchange: () => { smoothing = Number(slider.value); redraw(); } });
      host.append(el("div", { class: "filters" }, search, el("label", {}, "smoothing ", slider),
        report.curvesKey(await report.loadAll("metrics"))), area);
      await redraw();
    },
  };
})(window.report);
