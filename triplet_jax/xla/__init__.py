"""Operations written in the one way that XLA compiles to fast and correct code."""
