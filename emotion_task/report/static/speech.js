"use strict";
// Drawings of speech that stand alone: a recording's wave with loudness and pitch, and text with its claims.
// Needs nothing of any page. `outline`: {seconds, wave [0..255], energy [dBFS], pitch [Hz, 0 unvoiced]};
// a claim: {type, value, verdict (right, wrong, unmeasured), places [[start, end]]}.

window.speech = {};

((speech) => {
  const SVG = "http://www.w3.org/2000/svg";
  const make = (tag, attributes, text) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const [WAVE, PITCH, LEFT, GAP] = [84, 84, 46, 10];
  let WIDTH = 720; // of the drawing; less on a narrow screen, so that its letters stay legible

  // Runs of voiced points as paths; unvoiced stretches stay empty.
  const contour = (values, x, y, isThere) => {
    let path = "", open = false;
    values.forEach((value, i) => {
      if (!isThere(value)) { open = false; return; }
      path += `${open ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
      open = true;
    });
    return path;
  };

  // Returns an SVG of the recording. With an audio element it shows where that plays, and a click goes there.
  speech.wave = (outline, audio) => {
    WIDTH = Math.max(280, Math.min(720, innerWidth - 56));
    const count = outline.wave.length, inner = WIDTH - LEFT, height = WAVE + GAP + PITCH + 20;
    const x = (i) => LEFT + (inner * (i + 0.5)) / count;
    const voiced = outline.pitch.filter((hertz) => hertz > 0);
    const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${height}`, class: "speech-wave", role: "img" });
    svg.append(make("title", {}, `Recording of ${outline.seconds.toFixed(2)} s${voiced.length ? `, pitch ${Math.min(...voiced)} to ${Math.max(...voiced)} Hz` : ", no pitch"}`));
    const middle = WAVE / 2;
    const top = outline.wave.map((v, i) => `${x(i).toFixed(1)} ${(middle - (v / 255) * middle * 0.92).toFixed(1)}`);
    const under = outline.wave.map((v, i) => `${x(i).toFixed(1)} ${(middle + (v / 255) * middle * 0.92).toFixed(1)}`).reverse();
    svg.append(make("path", { d: `M${top.join("L")}L${under.join("L")}Z`, class: "speech-outline" }));
    if (outline.energy.length) {
      const loudest = Math.max(...outline.energy), floor = loudest - 50;
      const y = (db) => WAVE - 2 - ((Math.max(db, floor) - floor) / 50) * (WAVE - 6);
      svg.append(make("path", { d: contour(outline.energy, x, y, () => true), class: "speech-energy" }), make("text", { x: 0, y: 12, class: "speech-label energy" }, "energy"), make("text", { x: 0, y: 26, class: "speech-label" }, `${loudest.toFixed(0)} dB`));
    }
    const lane = WAVE + GAP;
    if (voiced.length) {
      const low = Math.min(...voiced) * 0.92, high = Math.max(...voiced) * 1.08;
      const y = (hertz) => lane + PITCH - (Math.log(hertz / low) / Math.log(high / low)) * PITCH;
      svg.append(make("path", { d: contour(outline.pitch, x, y, (v) => v > 0), class: "speech-pitch" }));
      for (const hertz of [Math.min(...voiced), Math.max(...voiced)]) svg.append(make("line", { x1: LEFT, x2: WIDTH, y1: y(hertz), y2: y(hertz), class: "speech-grid" }), make("text", { x: 0, y: y(hertz) + 4, class: "speech-label" }, `${hertz} Hz`));
      svg.append(make("text", { x: 0, y: lane + PITCH / 2 + 4, class: "speech-label pitch" }, "F0"));
    } else svg.append(make("text", { x: LEFT, y: lane + PITCH / 2, class: "speech-label" }, "no pitch: nothing here is voiced"));
    for (let i = 0; i <= 4; i++) svg.append(make("text", { x: LEFT + (inner * i) / 4, y: height - 3, class: "speech-label", "text-anchor": i === 0 ? "start" : i === 4 ? "end" : "middle" }, `${((outline.seconds * i) / 4).toFixed(1)} s`));
    if (audio) follow(svg, audio, outline.seconds, height - 18, inner, WIDTH);
    return svg;
  };

  const follow = (svg, audio, seconds, height, inner, width) => {
    const line = make("line", { x1: LEFT, x2: LEFT, y1: 0, y2: height, class: "speech-now" });
    svg.append(line);
    const show = () => { const at = LEFT + inner * Math.min(1, audio.currentTime / seconds); line.setAttribute("x1", at); line.setAttribute("x2", at); };
    const run = () => { show(); if (!audio.paused && svg.isConnected) requestAnimationFrame(run); };
    audio.addEventListener("play", run);
    audio.addEventListener("timeupdate", show);
    svg.addEventListener("click", (event) => {
      const box = svg.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * width;
      audio.currentTime = Math.max(0, Math.min(1, (at - LEFT) / inner)) * seconds;
      audio.play().catch(() => {});
    });
  };

  const MARKS = { right: "✓", wrong: "✗", unmeasured: "?" };
  const worst = (claims) => ["wrong", "right", "unmeasured"].find((verdict) => claims.some((claim) => claim.verdict === verdict));

  // Returns the text from `start` to `end` as a fragment, each claim marked by colour and sign. `told(claim)` is
  // what a mark says to who points at it.
  // Positions count characters as Python does, not UTF-16 units.
  speech.claims = (text, claims, told, start = 0, end = [...text].length) => {
    const letters = [...text];
    const cuts = [...new Set([start, end, ...claims.flatMap((claim) => claim.places.flat())])].filter((at) => at >= start && at <= end).sort((a, b) => a - b);
    const fragment = document.createDocumentFragment();
    for (let i = 0; i + 1 < cuts.length; i++) {
      const [from, to] = [cuts[i], cuts[i + 1]];
      const here = claims.filter((claim) => claim.places.some(([a, b]) => a <= from && b >= to));
      const piece = letters.slice(from, to).join("");
      if (!here.length) { fragment.append(piece); continue; }
      const mark = document.createElement("mark");
      mark.className = `claim ${worst(here)}`;
      mark.dataset.mark = MARKS[worst(here)];
      mark.title = here.map(told).join("\n");
      mark.append(piece);
      fragment.append(mark);
    }
    return fragment;
  };
  speech.marks = MARKS;
})(window.speech);
