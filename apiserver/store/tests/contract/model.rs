//! The engines against the model: whatever is done to both, both answer the same.
