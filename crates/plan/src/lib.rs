//! Lowers syntax plus build arguments into the instruction DAG.
