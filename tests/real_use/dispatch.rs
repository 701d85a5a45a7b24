//! Queries between arrival and answer: duplicate work, fair shares, abandoned work, poison, hangs.
