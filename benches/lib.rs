//! Microbenches of the libraries; see README.md beside this file.
