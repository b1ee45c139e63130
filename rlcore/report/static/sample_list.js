"use strict";
// The list of samples: columns are filtered, and only the rows in sight are elements.

((report) => {
  const { el, number } = report;
  const ROW = 46;

  report.valueOf = (samples, at, name) => {
    if (name === "reward" || name === "advantage") return samples.more[at][name] ?? null;
    const score = samples.scores[at][name];
    return score && typeof score.value === "number" ? score.value : null;
  };
  report.markOf = (right) => (right === true ? "✓" : right === false ? "✗" : "·");
  const word = (right) => (right === true ? "right" : right === false ? "wrong" : "unjudged");

  // Numbers of the samples that pass all filters, in the order asked for.
  report.filterSamples = (samples, filters) => {
    const { step, split, right, group, by, min, max, q, sort } = filters;
    const text = (q || "").toLowerCase();
    const low = min === "" || min === undefined ? -Infinity : Number(min), high = max === "" || max === undefined ? Infinity : Number(max);
    const bounded = by && (low > -Infinity || high < Infinity);
    const found = [];
    for (let at = 0; at < samples.step.length; at++) {
      if (split && samples.split[at] !== split) continue;
      if (step !== undefined && step !== "" && samples.step[at] !== Number(step)) continue;
      if (right && word(samples.right[at]) !== right) continue;
      if (group && samples.prompts[samples.prompt[at]].id !== group) continue;
      if (bounded) { const value = report.valueOf(samples, at, by); if (value === null || value < low || value > high) continue; }
      if (text && !samples.text[at].toLowerCase().includes(text) && !String(samples.prompts[samples.prompt[at]].id).toLowerCase().includes(text)) continue;
      found.push(at);
    }
    if (sort) {
      const [name, direction] = sort.split(":"), sign = direction === "up" ? 1 : -1;
      const value = (at) => (name === "step" ? samples.step[at] : report.valueOf(samples, at, name) ?? -Infinity);
      found.sort((a, b) => sign * (value(a) - value(b)) || a - b);
    }
    return found;
  };

  const line = (samples, at, top, isChosen, choose) => {
    const prompt = samples.prompts[samples.prompt[at]];
    return el("div", { class: `row ${isChosen ? "chosen" : ""}`, style: `top: ${top}px`, role: "option", id: `row-${at}`, "aria-selected": String(isChosen), onclick: () => choose(at) },
      el("span", { class: `mark ${word(samples.right[at])}`, title: word(samples.right[at]) }, report.markOf(samples.right[at])),
      el("span", { class: "what" }, el("b", {}, prompt.id), el("small", {}, `${samples.split[at] === "eval" ? "held-out" : samples.split[at]} · step ${samples.step[at]}${samples.split[at] === "eval" ? "" : ` · ${samples.sample[at]}`}`)),
      el("span", { class: "start" }, samples.text[at].slice(0, 160).replace(/<\/?\w+>/g, " ").trim().slice(0, 110)),
      el("span", { class: "score" }, samples.more[at].reward === undefined ? "" : number(samples.more[at].reward, 2), el("small", {}, samples.more[at].advantage === undefined ? "" : `A ${number(samples.more[at].advantage, 2)}`)));
  };

  // Returns {element, show(samples, numbers), choose(at), move(by), chosen()}.
  report.sampleList = (onChosen) => {
    let samples = null, numbers = [], chosen = null;
    const inner = el("div", { class: "rows" });
    const element = el("div", { class: "list", tabindex: 0, role: "listbox", "aria-label": "Samples" }, inner);
    const draw = () => {
      if (!samples) return;
      const first = Math.max(0, Math.floor(element.scrollTop / ROW) - 4), last = Math.min(numbers.length, first + Math.ceil(element.clientHeight / ROW) + 8);
      const rows = [];
      for (let i = first; i < last; i++) rows.push(line(samples, numbers[i], i * ROW, numbers[i] === chosen, choose));
      inner.replaceChildren(...rows);
      element.setAttribute("aria-activedescendant", chosen === null ? "" : `row-${chosen}`);
    };
    const choose = (at, quiet = false) => { chosen = at; draw(); if (!quiet) onChosen(at); };
    const intoSight = () => {
      const top = numbers.indexOf(chosen) * ROW;
      if (top < element.scrollTop || top + ROW > element.scrollTop + element.clientHeight) element.scrollTop = Math.max(0, top - element.clientHeight / 3);
    };
    element.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
    return {
      element, choose, chosen: () => chosen,
      show(all, found) { samples = all; numbers = found; inner.style.height = `${found.length * ROW}px`; intoSight(); draw(); },
      move(by) {
        if (!numbers.length) return;
        const at = numbers.indexOf(chosen);
        choose(numbers[Math.max(0, Math.min(numbers.length - 1, at < 0 ? 0 : at + by))]);
        intoSight(); draw();
      },
    };
  };
})(window.report);
