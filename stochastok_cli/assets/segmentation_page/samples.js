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

/** How many samples estimates are made of, in the end and at first: the same in every browser, fewer of a long text. */
const ALL_SAMPLES = Math.round(Math.min(2000, Math.max(200, 400000 / data.starts.at(-1))));
const FIRST_SAMPLES = Math.max(30, Math.round(ALL_SAMPLES / 10));

let cache = { key: "", samples: [], drawn: [] };
let sampleTimer = 0;

/** Samples for estimates, the same as long as method, p and seed are. */
function samples() {
  const m = method(),
    key = `${m.name}/${proportion()}/${state.seed}`;
  if (cache.key !== key) {
    cache = { key, samples: [], drawn: [] };
    drawSamples(m.samples ? samplesAt(m, proportion()).length : FIRST_SAMPLES);
    cache.samples = [...cache.drawn];
  }
  return cache.samples;
}

/** The number of samples of the estimates, and of how many it will be while they are drawn. */
function samplesText() {
  const n = samples().length;
  return method().samples || n === ALL_SAMPLES
    ? `${number(n)} samples`
    : `the first ${number(n)} of ${number(ALL_SAMPLES)} samples`;
}

/** Half the 95% interval of a share of the samples, in percentage points; of one half, which has the largest. */
const halfInterval = () => number(98 / Math.sqrt(samples().length), 1);

/** Draws more samples, up to `count` of them or up to a time; what is shown stays until all are there. */
function drawSamples(count, until = Infinity) {
  for (let i = cache.drawn.length; i < count && performance.now() < until; i++) {
    cache.drawn.push(drawSample(tables, method(), proportion(), state.seed, i));
  }
}

/** Draws the other samples while nothing else happens, and then shows what they say. */
function drawMoreSamples(wait = 60) {
  clearTimeout(sampleTimer);
  if (method().samples || samples().length >= ALL_SAMPLES) return;
  sampleTimer = setTimeout(() => {
    samples(); // begins anew where p has changed since
    drawSamples(ALL_SAMPLES, performance.now() + 40);
    if (cache.drawn.length < ALL_SAMPLES) {
      drawMoreSamples(10);
      return;
    }
    cache.samples = cache.drawn;
    curves.delete(atKey(method()));
    showMean();
    weighArcs();
    if (byId("distribution-badge").classList.contains("estimated")) showDistribution();
    drawGrowth();
  }, wait);
}

const sum = (values) => values.reduce((a, b) => a + b, 0);
const mean = (values) => sum(values) / values.length;

/** The mean of the lengths of samples, its 95% interval and their number. */
function estimated(lengths) {
  const value = mean(lengths),
    n = lengths.length;
  const deviation = Math.sqrt(sum(lengths.map((length) => (length - value) ** 2)) / Math.max(n - 1, 1));
  return { value, exact: false, interval: (1.96 * deviation) / Math.sqrt(n), count: n };
}

/** The mean number of tokens at p, and whether it is exact. */
function meanTokens(m, p, count) {
  if (!m.takes_p) return { value: m.samples[0][0].length, exact: true };
  if (p === 0 && m.identity_at_zero) return { value: tables.tokens.length, exact: true };
  const law = lawOf(m);
  if (law.expected) return { value: law.expected(tables, m, p), exact: true };
  const drawn = m.samples
    ? samplesAt(m, p).map((ids) => ids.length)
    : Array.from({ length: count }, (_, i) => drawSample(tables, m, p, state.seed, i).length);
  return estimated(drawn);
}
