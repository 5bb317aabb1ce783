"""Operations that XLA compiles to something wrong or slow, written so that it does not."""
