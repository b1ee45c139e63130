"use strict";
// Where data comes from: elements of this file, or the server that watches a run.

((report) => {
  report.head = JSON.parse(document.getElementById("head").textContent);
  const loaded = new Map();

  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  };
  const fetchJson = async (path) => {
    const answer = await fetch(path);
    if (!answer.ok) throw new Error(`${path}: the server answers ${answer.status}`);
    return answer.json();
  };

  // Returns a promise of one part of a run: metrics, timeline, samples, recordings, sounds.
  report.load = (run, name) => {
    const key = `${run}/${name}`;
    if (!loaded.has(key)) {
      const element = document.getElementById(key);
      if (element) loaded.set(key, unpack(element.textContent));
      else if (report.head.live && name !== "recordings" && name !== "sounds") loaded.set(key, fetchJson(key));
      else loaded.set(key, Promise.resolve(null));
    }
    return loaded.get(key);
  };
  report.loadAll = (name) => Promise.all(report.head.runs.map((_, run) => report.load(run, name)));
  report.forget = () => loaded.clear();

  // What the task draws of the sample `at` of a run: {sample, prompt}.
  report.detail = async (run, at) => {
    const samples = await report.load(run, "samples");
    if (report.head.live) return fetchJson(`${run}/detail?at=${at}`).catch(() => ({ sample: null, prompt: null }));
    const recordings = (await report.load(run, "recordings")) || [];
    return { sample: samples.details ? samples.details[at] : null, prompt: recordings[samples.prompt[at]] || null };
  };

  // Addresses of a sample's recordings, none where this page cannot play them.
  const playable = /\.(wav|flac|mp3|ogg|opus|m4a|mp4|webm)$/i;
  report.sounds = async (run, at) => {
    const samples = await report.load(run, "samples");
    const media = samples.prompts[samples.prompt[at]].media;
    const paths = [media && media.audio].flat().filter((path) => typeof path === "string" && playable.test(path));
    if (report.head.live) return paths.map((_, i) => `${run}/sound?at=${at}&i=${i}`);
    const embedded = (await report.load(run, "sounds")) || {};
    return paths
      .map((path) => embedded[path] || (location.protocol === "file:" ? `file://${path.split("/").map(encodeURIComponent).join("/")}` : null))
      .filter((address) => address !== null);
  };

  // A page that watches asks again every few seconds, and draws anew where something has changed.
  report.watch = (changed) => {
    if (!report.head.live) return;
    let before = "";
    const ask = async () => {
      try {
        const head = await fetchJson("head");
        const now = JSON.stringify(head.runs.map((run) => [run.state.step, run.state.phase, run.num_samples, run.alarms.length, run.state.state]));
        report.head = head;
        document.body.classList.remove("lost");
        if (before && now !== before) { report.forget(); changed(); }
        before = now;
      } catch { document.body.classList.add("lost"); }
      setTimeout(ask, 3000);
    };
    ask();
  };
})(window.report);
