//! The plan as data (`golden`) and its laws (`laws`).

mod golden;
mod laws;
