//! Packs and unpacks layers and assembles OCI configs, manifests, layouts and archives.
