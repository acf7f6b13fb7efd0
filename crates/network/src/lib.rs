//! Networks of containers: devices, addresses, translation, names and published ports.
