//! Torch.
