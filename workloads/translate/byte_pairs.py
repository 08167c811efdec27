"""Byte-pair encoding (Sennrich et al. 2016, 1508.07909), on characters and the same everywhere.

Words carry the space before them, so that the symbols of a text, joined, are the text. Only
integers are counted and every tie is broken by the symbols themselves: no order of a hash table
or of the input matters.
"""

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

Pair = tuple[str, str]

WORD = re.compile(r" ?\w+| ?[^\w\s]")


def normalised(line: str) -> str:
    """Return the line with one space before its first word and between words."""
    return "".join(f" {part}" for part in line.split())


def merged(symbols: Sequence[str], pair: Pair) -> list[str]:
    """Return the symbols with every occurrence of the pair, from the left, made one."""
    result: list[str] = []
    i = 0
    while i < len(symbols):
        if tuple(symbols[i : i + 2]) == pair:
            result.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            result.append(symbols[i])
            i += 1
    return result


def learn_merges(words: Mapping[str, int], symbols: int) -> list[Pair]:
    """Return the pairs to merge, in order, so that `symbols` different symbols exist in all.

    Each is the most frequent pair of neighbours in the words, which stand with their counts;
    of equally frequent ones the first in alphabetical order. Fewer where words run out.
    """
    splits = [list(word) for word in words]
    counts = list(words.values())
    frequency: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)  # words that hold or held it
    for i, split in enumerate(splits):
        for pair in pairwise(split):
            frequency[pair] += counts[i]
            places[pair].add(i)
    heap = [(-count, pair) for pair, count in frequency.items()]
    heapq.heapify(heap)

    known = {symbol for split in splits for symbol in split}
    merges: list[Pair] = []
    while len(known) < symbols and heap:
        count, pair = heapq.heappop(heap)
        if frequency[pair] != -count or not count:
            continue  # an older count; the present one has its own entry
        merges.append(pair)
        known.add("".join(pair))
        changed = set()
        for i in places.pop(pair):
            before, after = splits[i], merged(splits[i], pair)
            splits[i] = after
            for old in pairwise(before):
                frequency[old] -= counts[i]
                changed.add(old)
            for new in pairwise(after):
                frequency[new] += counts[i]
                places[new].add(i)
                changed.add(new)
        for neighbours in changed:
            heapq.heappush(heap, (-frequency[neighbours], neighbours))
    return merges


class BytePairs:
    """Splits texts by merges learned before."""

    def __init__(self, merges: Sequence[Pair]) -> None:
        self._rank = {pair: rank for rank, pair in enumerate(merges)}
        self._splits: dict[str, list[str]] = {}

    def split(self, text: str) -> list[str]:
        """Return the symbols of a normalised text; joined they are the text."""
        return [symbol for word in WORD.findall(text) for symbol in self._split_word(word)]

    def _split_word(self, word: str) -> list[str]:
        if word not in self._splits:
            symbols = list(word)
            while True:
                pairs = set(pairwise(symbols)) & self._rank.keys()
                if not pairs:
                    break
                symbols = merged(symbols, min(pairs, key=self._rank.__getitem__))
            self._splits[word] = symbols
        return self._splits[word]
