//! Feature maps in the arena, and what a layer reads: one or two of them side by side.

/// Kind of a map's values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Values {
    /// Floats.
    #[default]
    Floats,
    /// Bytes, with this scale.
    Bytes(f32),
}

impl Values {
    /// The real value of 1.
    pub(super) const fn scale(self) -> f32 {
        match self {
            Self::Bytes(scale) => scale,
            Self::Floats => 1.0,
        }
    }
}

/// A feature map `[channels, height, width]` in the arena, plane after plane.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Map {
    /// Offset of its first plane.
    pub(super) at: usize,
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) values: Values,
}

impl Map {
    pub(super) const fn plane_len(&self) -> usize {
        self.height.saturating_mul(self.width)
    }

    pub(super) const fn len(&self) -> usize {
        self.channels.saturating_mul(self.plane_len())
    }

    /// The end of the last plane.
    pub(super) const fn end(&self) -> usize {
        self.at.saturating_add(self.len())
    }

    pub(super) fn plane<'a, T>(&self, maps: &'a [T], channel: usize) -> &'a [T] {
        part(maps, self.at + channel * self.plane_len(), self.plane_len())
    }

    pub(super) fn plane_mut<'a, T>(&self, maps: &'a mut [T], channel: usize) -> &'a mut [T] {
        part_mut(maps, self.at + channel * self.plane_len(), self.plane_len())
    }
}

/// Input of a layer: a map, and after its channels those of another.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerInput {
    pub(super) first: Map,
    pub(super) second: Option<Map>,
    /// Each pixel of the first map is read as 2 x 2.
    pub(super) up: bool,
    /// The first map's channels in groups of this many, of which only every third is read: the
    /// queries of heads that lie between their keys and values.
    pub(super) every_third: Option<usize>,
}

impl From<Map> for LayerInput {
    fn from(first: Map) -> Self {
        Self { first, second: None, up: false, every_third: None }
    }
}

impl LayerInput {
    pub(super) fn channels(&self) -> usize {
        let first = self.first.channels / if self.every_third.is_some() { 3 } else { 1 };
        first + self.second.map_or(0, |second| second.channels)
    }

    pub(super) const fn height(&self) -> usize {
        if self.up { 2 * self.first.height } else { self.first.height }
    }

    pub(super) const fn width(&self) -> usize {
        if self.up { 2 * self.first.width } else { self.first.width }
    }

    /// The stored plane of a channel; of a map that is doubled, the small one.
    pub(super) fn plane<'a, T>(&self, maps: &'a [T], channel: usize) -> &'a [T] {
        let own = self.channels() - self.second.map_or(0, |second| second.channels);
        match (self.second, self.every_third) {
            (Some(second), _) if channel >= own => second.plane(maps, channel - own),
            (_, Some(group)) => {
                let skipped = channel.checked_div(group).unwrap_or(0) * 2 * group;
                self.first.plane(maps, channel + skipped)
            }
            _ => self.first.plane(maps, channel),
        }
    }

    /// Kind of a channel's values.
    pub(super) fn values(&self, channel: usize) -> Values {
        match self.second {
            Some(second) if channel >= self.first.channels => second.values,
            _ => self.first.values,
        }
    }

    /// Times that each value of a channel's stored plane is read.
    pub(super) const fn repeats(&self, channel: usize) -> usize {
        if self.up && channel < self.first.channels { 4 } else { 1 }
    }

    /// Writes row `y` of a channel.
    ///
    /// # Shapes
    /// `out`: `[width]`.
    pub(super) fn row<T: Copy>(&self, maps: &[T], channel: usize, y: usize, out: &mut [T]) {
        let plane = self.plane(maps, channel);
        if self.repeats(channel) > 1 {
            let width = self.first.width;
            let row = part(plane, y / 2 * width, width);
            for (pair, &value) in out.chunks_mut(2).zip(row) {
                pair.fill(value);
            }
        } else {
            let row = part(plane, y * out.len(), out.len());
            out.iter_mut().zip(row).for_each(|(out, &value)| *out = value);
        }
    }
}

/// `len` values from `at` on; none where they are not all there.
pub(super) fn part<T>(values: &[T], at: usize, len: usize) -> &[T] {
    values.get(at..).and_then(|values| values.get(..len)).unwrap_or(&[])
}

/// `len` values from `at` on, to be written; none where they are not all there.
pub(super) fn part_mut<T>(values: &mut [T], at: usize, len: usize) -> &mut [T] {
    values.get_mut(at..).and_then(|values| values.get_mut(..len)).unwrap_or(&mut [])
}

/// Moves values towards the start. Not `copy_within`, which could panic.
pub(super) fn move_down<T: Copy>(values: &mut [T], from: usize, to: usize, len: usize) {
    for i in 0..len {
        let value = values.get(from + i).copied();
        if let (Some(to), Some(value)) = (values.get_mut(to + i), value) {
            *to = value;
        }
    }
}
