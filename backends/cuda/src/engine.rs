//! Handles of CUDA's libraries, one per device, made when a plan first needs them.

/// The handles.
#[derive(Default)]
pub struct Engines {}

impl Engines {
    /// Drops them. The context is current.
    pub fn clear(&mut self) {}
}
