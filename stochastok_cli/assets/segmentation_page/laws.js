"use strict";
// The expansion methods of stochastok_cli/tokenization/methods, in the same order of random numbers: for one seed this
// page and `stochastok expand --text` draw the same samples. A method has `draw`, which returns a segmentation of the
// text, `law`, the exact law of a word (null where it is not computed), and perhaps `expected`, its number of tokens.

/** A fixed rule, or a method without a law in this page: the results of the package, embedded. */
const embedded = {
  draw(tables, method, p, random, index) {
    const samples = samplesAt(method, p);
    return withSpans(tables, samples[index % samples.length]);
  },
  law(tables, method, p, word) {
    if (method.takes_p) return null;
    const parts = withSpans(tables, method.samples[0][0]);
    const own = partsOf(parts, word);
    return covers(own, word) ? [[own, 1]] : []; // none where a token crosses the borders of the word
  },
};

/** The embedded samples at the p of the grid that is nearest. */
function samplesAt(method, p) {
  if (!method.takes_p) return method.samples[0];
  const distances = method.grid.map((value) => Math.abs(value - p));
  return method.samples[distances.indexOf(Math.min(...distances))];
}

/** Ids as parts of the text. */
function withSpans(tables, ids) {
  let end = 0;
  return ids.map((id) => [end, (end += tables.data.widths[id]), id]);
}

const LAWS = {
  stochastok,
  "stochastok-uni": stochastokUni,
  uniform: walkMethod,
  "uniform-k": uniformK,
  grampa: walkMethod,
  unigram: walkMethod,
  "bpe-dropout": bpeDropout,
  "maxmatch-dropout": maxmatchDropout,
};

const lawOf = (method) => (method.samples ? embedded : LAWS[method.family]);

/** Sample `index` of the text by a method. */
function drawSample(tables, method, p, seed, index) {
  if (method.takes_p && p === 0 && method.identity_at_zero) return canonical(tables);
  const key = `${seed}/expand/${method.name}`;
  if (tables.key?.name !== key) tables.key = { name: key, words: deriveKey(seed, `expand/${method.name}`) };
  return lawOf(method).draw(tables, method, p, new Stream(tables.key.words, index), index);
}

/** The order of [parts, probability]: of equal probabilities (but for rounding), the one with fewer parts is first. */
const likeliestFirst = (a, b) => b[1].toPrecision(9) - a[1].toPrecision(9) || a[0].length - b[0].length;

/** The law of the segmentation of a word, as [parts, probability], the most likely first; null where it is unknown. */
function exactLaw(tables, method, p, word) {
  if (method.takes_p && p === 0 && method.identity_at_zero) return [[partsOf(canonical(tables), word), 1]];
  const law = lawOf(method).law(tables, method, p, word);
  return law && law.sort(likeliestFirst);
}
