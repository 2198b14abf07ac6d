"use strict";
// The state of the page, and the samples that its estimates are made of.

/** The word with the most segmentations of which all can be listed. */
const richestWord =
  tables.words
    .map(({ first, last, index }) => ({
      index,
      size: tables.tokens.slice(first, last).reduce((product, token) => product * token.total[0], 1),
    }))
    .filter(({ size }) => size <= MOST_SEGMENTATIONS)
    .sort((a, b) => b.size - a.size)[0]?.index ?? 0;
const state = { method: 0, p: data.p, seed: data.seed, first: 0, word: richestWord };
const method = () => data.methods[state.method];
const seedOf = (m) => (m.samples ? data.seed : state.seed);
const proportion = (m = method()) => (m.takes_p ? Math.min(state.p, m.max_p) : 1);

/** How many samples estimates are made of: at first at least, and in the end; fewer of a long text. */
const FIRST_SAMPLES = 30;
const FIRST_TIME = 50; // ms, in which more are drawn at once
const ALL_SAMPLES = Math.round(Math.min(2000, Math.max(200, 400000 / data.starts.at(-1))));

let cache = { key: "", samples: [] };
let sampleTimer = 0;

/** Samples for estimates, the same as long as method, p and seed are. */
function samples() {
  const m = method(),
    key = `${m.name}/${proportion()}/${state.seed}`;
  if (cache.key !== key) {
    cache = { key, samples: [] };
    if (m.samples) {
      drawSamples(samplesAt(m, proportion()).length);
    } else {
      drawSamples(FIRST_SAMPLES);
      drawSamples(ALL_SAMPLES, performance.now() + FIRST_TIME);
    }
  }
  return cache.samples;
}

/** Draws more samples, up to `count` of them or up to a time. */
function drawSamples(count, until = Infinity) {
  for (let i = cache.samples.length; i < count && performance.now() < until; i++) {
    cache.samples.push(drawSample(tables, method(), proportion(), state.seed, i));
  }
}

/** Draws the other samples while nothing else happens, and then shows what they say. */
function drawMoreSamples() {
  clearTimeout(sampleTimer);
  if (method().samples || samples().length >= ALL_SAMPLES) return;
  sampleTimer = setTimeout(() => {
    drawSamples(ALL_SAMPLES, performance.now() + 40);
    if (cache.samples.length < ALL_SAMPLES) {
      drawMoreSamples();
      return;
    }
    curves.delete(atKey(method()));
    showMean();
    weighArcs();
    if (byId("distribution-badge").classList.contains("estimated")) showDistribution();
    drawGrowth();
  }, 60);
}

const sum = (values) => values.reduce((a, b) => a + b, 0);
const mean = (values) => sum(values) / values.length;

/** The mean number of tokens at p, and whether it is exact. */
function meanTokens(m, p, count) {
  if (!m.takes_p) return { value: m.samples[0][0].length, exact: true };
  if (p === 0 && m.identity_at_zero) return { value: tables.tokens.length, exact: true };
  const law = lawOf(m);
  if (law.expected) return { value: law.expected(tables, m, p), exact: true };
  const drawn = m.samples
    ? samplesAt(m, p).map((ids) => ids.length)
    : Array.from({ length: count }, (_, i) => drawSample(tables, m, p, state.seed, i).length);
  return { value: mean(drawn), exact: false };
}
