//! Products of u8 rows and i8 panels with exact i32 sums.
//!
//! A panel holds [`GROUP`] consecutive weights of each of its [`COLUMNS`] columns side by side,
//! which is what the dot product instructions take (AVX-512 VNNI; elsewhere plain loops).

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m512i, _mm512_dpbusd_epi32, _mm512_set1_epi32, _mm512_setzero_si512};

/// Columns of a panel.
pub(super) const COLUMNS: usize = 32;
/// Weights of a column that lie side by side.
pub(super) const GROUP: usize = 4;

/// Rows of a tile of sums.
#[cfg(target_arch = "x86_64")]
const ROWS: usize = 8;

/// [`GROUP`] weights of every column.
type Groups = [[i8; GROUP]; COLUMNS];

/// A right factor in 8 bits.
pub(super) struct Panel {
    values: Vec<Groups>,
    /// The scale of the weights of each column.
    pub scales: [f32; COLUMNS],
    /// The sum of each column.
    pub sums: [i32; COLUMNS],
}

impl Panel {
    /// Zeros, for a depth that [`GROUP`] divides.
    pub(super) fn new(depth: usize) -> Self {
        let values = vec![[[0; GROUP]; COLUMNS]; depth / GROUP];
        Self { values, scales: [0.0; COLUMNS], sums: [0; COLUMNS] }
    }

    /// Writes a column.
    pub(super) fn set(&mut self, column: usize, weights: &[i8]) {
        for (groups, weights) in self.values.iter_mut().zip(weights.chunks(GROUP)) {
            groups[column][..weights.len()].copy_from_slice(weights);
        }
    }
}

/// `sums[i] = left[i] panel`, with `left: [rows, depth]` and the panel's depth.
pub(super) fn product(left: &[u8], depth: usize, panel: &Panel, sums: &mut [[i32; COLUMNS]]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512vnni")
        && std::arch::is_x86_feature_detected!("avx512f")
    {
        let whole = sums.len() / ROWS * ROWS;
        let (body, rest) = sums.split_at_mut(whole);
        #[expect(unsafe_code, reason = "calls a function for some CPUs only")]
        // SAFETY: the CPU has the features that the function is compiled for.
        unsafe {
            vnni::<ROWS>(&left[..whole * depth], depth, panel, body);
            vnni::<1>(&left[whole * depth..], depth, panel, rest);
        }
        return;
    }
    plain(left, depth, panel, sums);
}

/// The product by its definition.
fn plain(left: &[u8], depth: usize, panel: &Panel, sums: &mut [[i32; COLUMNS]]) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for (left, sums) in left.chunks_exact(depth.max(1)).zip(sums) {
                *sums = [0; COLUMNS];
                for (left, groups) in left.as_chunks::<GROUP>().0.iter().zip(&panel.values) {
                    for column in 0..COLUMNS {
                        for i in 0..GROUP {
                            sums[column] += i32::from(left[i]) * i32::from(groups[column][i]);
                        }
                    }
                }
            }
        },
    );
}

/// The product in tiles of `R` rows, which divides their number.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn vnni<const R: usize>(left: &[u8], depth: usize, panel: &Panel, sums: &mut [[i32; COLUMNS]]) {
    for (left, sums) in left.chunks_exact((R * depth).max(1)).zip(sums.chunks_exact_mut(R)) {
        let mut rows = [&[][..]; R];
        for (row, left) in rows.iter_mut().zip(left.chunks_exact(depth)) {
            *row = &left.as_chunks::<GROUP>().0[..panel.values.len()];
        }
        let mut tile = [[_mm512_setzero_si512(); 2]; R];
        for (k, groups) in panel.values.iter().enumerate() {
            let right = halves(groups);
            for i in 0..R {
                let left = _mm512_set1_epi32(i32::from_le_bytes(rows[i][k]));
                for j in 0..2 {
                    tile[i][j] = _mm512_dpbusd_epi32(tile[i][j], left, right[j]);
                }
            }
        }
        for (sums, tile) in sums.iter_mut().zip(tile) {
            #[expect(unsafe_code, reason = "vectors and arrays have the same bytes")]
            // SAFETY: both types are 128 bytes of plain integers, valid for every bit pattern.
            let values = unsafe { core::mem::transmute::<[__m512i; 2], [i32; COLUMNS]>(tile) };
            *sums = values;
        }
    }
}

/// The vectors of the groups.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn halves(groups: &Groups) -> [__m512i; 2] {
    #[expect(unsafe_code, reason = "vectors and arrays have the same bytes")]
    // SAFETY: both types are 128 bytes of plain integers, valid for every bit pattern.
    unsafe {
        core::mem::transmute::<Groups, [__m512i; 2]>(*groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_gives_the_exact_sums() {
        for (rows, depth) in [(1, 4), (8, 36), (21, 2304), (3, 0)] {
            let left: Vec<u8> = (0..rows * depth).map(|i| (i * 97 % 256) as u8).collect();
            let mut panel = Panel::new(depth);
            let weight =
                |column: usize, k: usize| i32::from(((column * 31 + k * 57) % 255) as u8) - 127;
            for column in 0..COLUMNS {
                let weights: Vec<i8> = (0..depth).map(|k| weight(column, k) as i8).collect();
                panel.set(column, &weights);
            }
            let mut fast = vec![[7; COLUMNS]; rows];
            let mut plainly = vec![[9; COLUMNS]; rows];
            product(&left, depth, &panel, &mut fast);
            plain(&left, depth, &panel, &mut plainly);
            for row in 0..rows {
                for column in 0..COLUMNS {
                    let products =
                        (0..depth).map(|k| i32::from(left[row * depth + k]) * weight(column, k));
                    let exact: i32 = products.sum();
                    let expected = if depth == 0 { [7, 9] } else { [exact; 2] };
                    assert_eq!([fast[row][column], plainly[row][column]], expected);
                }
            }
        }
    }
}
