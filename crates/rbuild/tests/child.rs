//! The test program as a child of itself.

pub fn main_if_child() {}
