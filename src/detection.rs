//! What a model saw in a frame.

/// Most detections kept for one frame, after suppression.
pub const MAX_DETECTIONS: usize = 100;

/// One object, or one class of a classification (then the box is the whole frame).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Detection {
    /// Index into the model's labels.
    pub label: u16,
    /// Confidence, 0 to 1.
    pub score: f32,
    /// Left edge in pixels of the frame.
    pub x: f32,
    /// Top edge in pixels of the frame.
    pub y: f32,
    /// Width in pixels of the frame.
    pub width: f32,
    /// Height in pixels of the frame.
    pub height: f32,
}

/// The detections of one frame, best score first.
pub type Detections = heapless::Vec<Detection, MAX_DETECTIONS>;
