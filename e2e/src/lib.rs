//! Nothing: all tests are in `tests/it`.
