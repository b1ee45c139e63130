"use strict";
// The view of samples: filters above, the list on the left, one sample on the right.

((report) => {
  const { el } = report;
  const KEYS = ["run", "split", "step", "right", "by", "min", "max", "group", "q", "sort", "at"];
  let list = null;

  const choices = (name, options, values, change) => el("select", { "aria-label": name, "data-filter": name, onchange: change },
    options.map(([value, text]) => el("option", { value, selected: String(values[name] ?? "") === String(value) }, text)));
  const input = (name, type, label, values, change) => el("input", { type, "aria-label": label, placeholder: label, "data-filter": name, value: values[name] ?? "", step: "any", oninput: change });

  const filtersOf = (samples, values, change) => {
    const steps = [...new Set(samples.step)].sort((a, b) => a - b);
    const rewards = [...new Set(samples.scores.slice(0, 200).flatMap((each) => Object.keys(each)))];
    const scored = ["reward", ...rewards, "advantage"];
    const has = (split) => samples.split.includes(split);
    return el("form", { class: "filters", onsubmit: (event) => event.preventDefault() },
      report.head.runs.length > 1 ? choices("run", report.head.runs.map((run, i) => [i, run.name]), values, change) : null,
      choices("split", [["", "all samples"], ...(has("eval") ? [["eval", "held-out"]] : []), ...(has("train") ? [["train", "training"]] : [])], values, change),
      choices("step", [["", "any step"], ...steps.map((step) => [step, `step ${step}`])], values, change),
      choices("right", [["", "right or wrong"], ["right", "✓ right"], ["wrong", "✗ wrong"], ["unjudged", "· not judged"]], values, change),
      el("span", { class: "between-values" }, choices("by", [["", "any reward"], ...scored.map((name) => [name, name])], values, change), input("min", "number", "from", values, change), input("max", "number", "to", values, change)),
      input("group", "text", "group: prompt id", values, change), input("q", "search", "Search text (/)", values, change),
      choices("sort", [["", "in order"], ["reward:down", "highest reward"], ["reward:up", "lowest reward"], ["advantage:down", "highest advantage"], ["advantage:up", "lowest advantage"]], values, change),
      el("button", { type: "reset", onclick: () => report.go("samples", { run: values.run }) }, "Clear"));
  };

  report.views.samples = {
    title: "Samples",
    async draw(host, values) {
      const run = Number(values.run || 0);
      const samples = await report.load(run, "samples");
      if (!samples || !samples.step.length) { host.append(el("p", { class: "note" }, "No samples yet.")); return; }
      const count = el("p", { class: "quiet count", role: "status" });
      const detail = el("article", { class: "detail card", "aria-live": "polite", tabindex: 0 });
      let now = { ...values };
      const put = (more) => { // the address follows without a new drawing
        now = { ...now, ...more };
        history.replaceState(null, "", report.link("samples", Object.fromEntries(KEYS.map((key) => [key, now[key]]))));
      };
      list = report.sampleList((at) => { put({ at: report.nameOf(samples, at) }); report.drawSample(detail, run, at); });
      const apply = (choose) => {
        const found = report.filterSamples(samples, now);
        const left = samples.num_all - samples.step.length;
        count.textContent = `${found.length.toLocaleString("en")} of ${samples.step.length.toLocaleString("en")} samples` + (left ? `; ${left.toLocaleString("en")} more are in samples.jsonl alone` : "");
        list.show(samples, found);
        if (choose && found.length && !found.includes(list.chosen())) list.choose(found[0]);
        if (!found.length) detail.replaceChildren(el("p", { class: "quiet" }, "No sample passes these filters."));
      };
      const change = (event) => {
        const key = event.target.dataset.filter;
        if (key === "run") { report.go("samples", { ...now, run: event.target.value, at: "" }); return; }
        put({ [key]: event.target.value });
        apply(true);
      };
      host.append(filtersOf(samples, values, change), count, el("div", { class: "split" }, list.element, detail));
      const asked = values.at ? report.findSample(samples, values.at) : null;
      if (asked !== null) { list.choose(asked); apply(false); } else apply(true);
      if (values.at && asked === null) count.append(` · ${values.at} is not among them`);
    },
    key(key) {
      if (!list) return false;
      if (key === "j" || key === "ArrowDown") list.move(1);
      else if (key === "k" || key === "ArrowUp") list.move(-1);
      else if (key === "PageDown") list.move(10);
      else if (key === "PageUp") list.move(-10);
      else if (key === " ") { const audio = document.querySelector(".detail audio"); if (audio) audio.paused ? audio.play().catch(() => {}) : audio.pause(); }
      else if (key === "c") document.querySelector(".detail .card-head button")?.click();
      else if (key === "/") document.querySelector("[data-filter=q]")?.focus();
      else return false;
      return true;
    },
  };
})(window.report);
