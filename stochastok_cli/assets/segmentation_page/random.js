"use strict";
// The random streams of stochastok_cli/random_streams.py and tokenization/methods/kernels/random.py.

/** The key of a random stream: the first 8 bytes of BLAKE2b, as 2 words of 32 bits, high and low. */
function deriveKey(seed, purpose) {
  const key = blake2b64(new TextEncoder().encode(`${seed}/${purpose}/`));
  return [Number(key >> 32n), Number(key & 0xffffffffn)];
}

/** BLAKE2b (RFC 7693) of some bytes with a digest of 8 bytes, read as a little-endian integer. */
function blake2b64(bytes) {
  const iv = [
    0x6a09e667f3bcc908n,
    0xbb67ae8584caa73bn,
    0x3c6ef372fe94f82bn,
    0xa54ff53a5f1d36f1n,
    0x510e527fade682d1n,
    0x9b05688c2b3e6c1fn,
    0x1f83d9abfb41bd6bn,
    0x5be0cd19137e2179n,
  ];
  const sigma = [
    "0123456789abcdef",
    "ea489fd61c02b753",
    "b8c052fdae367194",
    "7931dcbe265a40f8",
    "905724afe1bc683d",
    "2c6a0b834d75fe19",
    "c51fed4a0763928b",
    "db7ec13950f4862a",
    "6fe9b308c2d714a5",
    "a2847615fb9e3cd0",
  ];
  const word = (x) => BigInt.asUintN(64, x);
  const rotate = (x, n) => word((x >> n) | (x << (64n - n)));
  const h = [...iv];
  h[0] ^= 0x01010008n;
  const blocks = Math.max(1, Math.ceil(bytes.length / 128));
  for (let block = 0; block < blocks; block++) {
    const m = new Array(16).fill(0n);
    for (let i = 0; i < 128; i++) {
      m[i >> 3] |= BigInt(bytes[block * 128 + i] ?? 0) << BigInt(8 * (i & 7));
    }
    const v = [...h, ...iv];
    v[12] ^= BigInt(Math.min((block + 1) * 128, bytes.length));
    if (block === blocks - 1) v[14] = word(~v[14]);
    const step = (a, b, c, d, x, y) => {
      v[a] = word(v[a] + v[b] + x);
      v[d] = rotate(v[d] ^ v[a], 32n);
      v[c] = word(v[c] + v[d]);
      v[b] = rotate(v[b] ^ v[c], 24n);
      v[a] = word(v[a] + v[b] + y);
      v[d] = rotate(v[d] ^ v[a], 16n);
      v[c] = word(v[c] + v[d]);
      v[b] = rotate(v[b] ^ v[c], 63n);
    };
    for (let round = 0; round < 12; round++) {
      const s = [...sigma[round % 10]].map((digit) => m[parseInt(digit, 16)]);
      step(0, 4, 8, 12, s[0], s[1]);
      step(1, 5, 9, 13, s[2], s[3]);
      step(2, 6, 10, 14, s[4], s[5]);
      step(3, 7, 11, 15, s[6], s[7]);
      step(0, 5, 10, 15, s[8], s[9]);
      step(1, 6, 11, 12, s[10], s[11]);
      step(2, 7, 8, 13, s[12], s[13]);
      step(3, 4, 9, 14, s[14], s[15]);
    }
    for (let i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
  }
  return h[0];
}

/** The lowest 64 bits of a product; numbers are pairs of 32-bit words, high and low. */
function multiply([aHigh, aLow], [bHigh, bLow]) {
  const a0 = aLow & 0xffff,
    a1 = aLow >>> 16,
    b0 = bLow & 0xffff,
    b1 = bLow >>> 16;
  const lowest = a0 * b0;
  const middle = a1 * b0 + (lowest >>> 16);
  const other = a0 * b1 + (middle & 0xffff);
  const carry = a1 * b1 + Math.floor(middle / 65536) + Math.floor(other / 65536);
  return [
    (carry + Math.imul(aHigh, bLow) + Math.imul(aLow, bHigh)) >>> 0,
    (((other & 0xffff) << 16) | (lowest & 0xffff)) >>> 0,
  ];
}

function add([aHigh, aLow], [bHigh, bLow]) {
  const low = aLow + bLow;
  return [(aHigh + bHigh + (low > 0xffffffff ? 1 : 0)) >>> 0, low >>> 0];
}

/** z ^ (z >> n), for n below 32. */
function xorShifted([high, low], n) {
  return [(high ^ (high >>> n)) >>> 0, (low ^ ((low >>> n) | (high << (32 - n)))) >>> 0];
}

/** The output function of SplitMix64 (Steele, Lea and Flood 2014). */
function mix(z) {
  z = multiply(xorShifted(z, 30), [0xbf58476d, 0x1ce4e5b9]);
  z = multiply(xorShifted(z, 27), [0x94d049bb, 0x133111eb]);
  return xorShifted(z, 31);
}

/** The random numbers of one sample. */
class Stream {
  constructor(key, index) {
    this.state = mix(add(key, mix([Math.floor(index / 2 ** 32), index >>> 0])));
  }
  /** 64 random bits, as 2 words. */
  bits() {
    this.state = add(this.state, [0x9e3779b9, 0x7f4a7c15]);
    return mix(this.state);
  }
  /** Uniform over [0, 1) in steps of 2^-53. */
  unit() {
    const [high, low] = this.bits();
    return (high * 2 ** 21 + (low >>> 11)) * 2 ** -53;
  }
}
