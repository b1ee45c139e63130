"use strict";
// The first view: what came of the run, what it does, what it warned of.

((report) => {
  const { el, number, percent, seconds } = report;

  const value = (head, x) => (head.shown_as_share ? `${percent(x)} %` : number(x));
  const bracket = (head, low, high, sign = false) =>
    low === null || low === undefined ? "" : head.shown_as_share
      ? `[${percent(low, sign)}, ${percent(high, sign)}]` : `[${number(low)}, ${number(high)}]`;

  report.pill = (state) => {
    const mark = { running: "●", finished: "✓", stopped: "■", "ended early": "✗" }[state.state] || "";
    return el("span", { class: `pill ${state.state.replace(" ", "-")}` }, `${mark} ${state.state}`);
  };

  const progress = (head) => {
    const { step, num_steps: total, state, phase, eta_s: left } = head.state;
    if (!total) return el("p", { class: "quiet" }, `step ${step}`);
    const told = [`step ${step} of ${total}`];
    if (state === "running") {
      if (phase) told.push(`now: ${phase.replace("_", " ")}`);
      if (left !== null) told.push(`about ${seconds(left)} left`);
    }
    if (head.seconds_per_step) told.push(`${seconds(head.seconds_per_step)} per step`);
    return el("div", { class: "progress" },
      el("progress", { max: total, value: step, "aria-label": "steps done" }), el("p", { class: "quiet" }, told.join(" · ")));
  };

  // The headline at each evaluation, its ends labelled.
  const trend = (head, run) => {
    if (head.points.length < 2) return null;
    const [width, height, pad] = [260, 72, 14];
    const xs = head.points.map(([step]) => step), ys = head.points.map(([, y]) => y);
    const ends = [Math.min(...ys), Math.max(...ys)];
    const x = (step) => pad + ((width - 2 * pad - 44) * (step - xs[0])) / (xs.at(-1) - xs[0] || 1);
    const y = (v) => height - pad - ((height - 2 * pad) * (v - ends[0])) / (ends[1] - ends[0] || 1);
    const last = head.points.at(-1);
    return el("svg", { class: "trend", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${head.metric} over ${xs.length} evaluations` },
      el("polyline", { points: head.points.map(([s, v]) => `${x(s)},${y(v)}`).join(" "), fill: "none", stroke: report.runColour(run), "stroke-width": 2 }),
      head.points.map(([s, v]) => el("circle", { cx: x(s), cy: y(v), r: 3, fill: report.runColour(run) }, el("title", {}, `step ${s}: ${value(head, v)}`))),
      el("text", { x: x(last[0]) + 8, y: y(last[1]) + 4 }, `step ${last[0]}`));
  };

  const headline = (head, run) => {
    const found = head.headline;
    if (!found) return el("p", { class: "quiet" }, "No evaluation yet.");
    found.shown_as_share = report.share(found.metric);
    const parts = [
      el("p", { class: "metric" }, `${found.metric.replaceAll("_", " ")} on held-out prompts, step ${found.step}`),
      el("p", { class: "big" }, value(found, found.value), el("span", { class: "interval" }, bracket(found, found.low, found.high))),
      el("p", { class: "quiet" }, found.n ? `n = ${number(found.n)}` : "n not known",
        found.low === null ? " · no interval: the metric is no mean of single answers' scores" : " · 95 % interval"),
    ];
    if (found.before) {
      const gain = found.gain;
      parts.push(el("p", { class: "before" }, `before ${value(found, found.before.value)} ${bracket(found, found.before.low, found.before.high)}`,
        gain ? el("strong", {}, ` · gain ${found.shown_as_share ? percent(gain.value, true) : number(gain.value)} ${bracket(found, gain.low, gain.high, true)}`) : null,
        gain ? el("span", { class: "quiet" }, " paired") : null));
    }
    return el("div", { class: "headline" }, el("div", {}, parts), trend(found, run));
  };

  const card = (head, run) => el("section", { class: "card run-card" },
    el("div", { class: "card-head" }, report.runMark(run), el("h2", {}, head.name), report.pill(head.state)),
    headline(head, run), progress(head));

  const between = () => {
    const gain = report.head.gain;
    if (!gain) return null;
    const shares = report.share(report.head.runs[0].headline.metric);
    const show = (x) => (shares ? percent(x, true) : number(x));
    return el("p", { class: "between card" }, el("strong", {}, `${report.head.runs[1].name} less ${report.head.runs[0].name}: ${show(gain.value)}`),
      ` [${show(gain.low)}, ${show(gain.high)}], paired over ${number(gain.n)} prompts that both answered`);
  };

  const alarms = () => {
    const all = report.head.runs.flatMap((head, run) => head.alarms.map((alarm) => ({ run, ...alarm })));
    if (!all.length) return null;
    return el("section", { class: "card alarms" }, el("h2", {}, `Warnings (${all.length})`),
      el("ul", {}, all.map((alarm) => el("li", {}, report.head.runs.length > 1 ? report.runMark(alarm.run) : null,
        el("span", {}, alarm.text),
        el("span", { class: "quiet" }, [alarm.step === null ? null : ` from step ${alarm.step}`, alarm.count > 1 ? ` ${alarm.count} times` : null].filter(Boolean).join(","))))));
  };

  // A metric of each reward, the gate and the KL: what tells at a glance whether a run learns.
  const KEY = ["reward/mean", "ptr/gate", "kl", "entropy", "completion/tokens"];
  const isKey = (chart) => KEY.includes(chart.metric) || (chart.section === "Rewards") ||
    chart.metric === `eval/${(report.head.runs[0].headline || {}).metric}`;

  report.views.overview = {
    title: "Overview",
    async draw(host) {
      const many = report.head.runs.length > 1;
      host.append(el("div", { class: many ? "columns" : "" }, report.head.runs.map(card)), between() || "", alarms() || "");
      const curves = el("section", { class: "curves", "aria-label": "Key curves" });
      host.append(curves);
      await report.drawCurves(curves, isKey);
      curves.append(report.curvesKey(await report.loadAll("metrics")));
      const figures = report.head.runs.map((head, run) => ({ head, run })).filter(({ head }) => head.figures.length);
      if (figures.length) host.append(el("div", { class: many ? "columns figures" : "figures" }, figures.map(({ head, run }) =>
        el("div", { class: many ? "" : "figures-row", style: `--mark: var(--run-${"abcd"[run % 4]})` }, head.figures.map((figure) => el("section", { class: `card figure ${figure.kind}` },
          el("h2", {}, many ? report.runMark(run) : null, figure.title), report.figure(figure)))))));
    },
  };
})(window.report);
