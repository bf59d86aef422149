//! The coefficients of the adaptive methods of up to seven stages.
//!
//! Sources: Dormand and Prince, A family of embedded Runge-Kutta formulae (1980), with the error
//! weights of Shampine (1986); Bogacki and Shampine, A 3(2) pair of Runge-Kutta formulas (1989);
//! Fehlberg, Low-order classical Runge-Kutta formulas with stepsize control (1969). Which of
//! several published variants, and the weights of the middle, follow torchdiffeq 0.2.5.

/// A method with an error estimate: `k_0` is the slope at the start, `k_i` that at
/// `t + nodes_i h` of `x + h sum_j stages_ij k_j`.
pub(super) struct Tableau {
    /// The order that the step control goes by.
    pub(super) order: i32,
    /// Times of the stages after the first, in steps.
    pub(super) nodes: &'static [f64],
    /// Weights of the slopes so far in each stage after the first.
    pub(super) stages: &'static [&'static [f64]],
    /// Weights of the slopes in the result; none where the last stage is the result.
    pub(super) solution: Option<&'static [f64]>,
    /// Weights of the slopes in the error estimate.
    pub(super) error: &'static [f64],
    /// Weights of the slopes in the state at the middle of the step.
    pub(super) middle: &'static [f64],
}

pub(super) static ADAPTIVE_HEUN: Tableau = Tableau {
    order: 2,
    nodes: &[1.0],
    stages: &[&[1.0]],
    solution: Some(&[0.5, 0.5]),
    error: &[0.5, -0.5],
    middle: &[0.5, 0.0],
};

/// The next step starts with the slope of the last stage, which is not quite at its start.
pub(super) static FEHLBERG2: Tableau = Tableau {
    order: 2,
    nodes: &[0.5, 1.0],
    stages: &[&[0.5], &[1.0 / 256.0, 255.0 / 256.0]],
    solution: Some(&[1.0 / 512.0, 255.0 / 256.0, 1.0 / 512.0]),
    error: &[-1.0 / 512.0, 0.0, 1.0 / 512.0],
    middle: &[0.0, 0.5, 0.0],
};

pub(super) static BOSH3: Tableau = Tableau {
    order: 3,
    nodes: &[0.5, 0.75, 1.0],
    stages: &[&[0.5], &[0.0, 0.75], &[2.0 / 9.0, 1.0 / 3.0, 4.0 / 9.0]],
    solution: None,
    error: &[2.0 / 9.0 - 7.0 / 24.0, 1.0 / 3.0 - 1.0 / 4.0, 4.0 / 9.0 - 1.0 / 3.0, -1.0 / 8.0],
    middle: &[0.0, 0.5, 0.0, 0.0],
};

pub(super) static DOPRI5: Tableau = Tableau {
    order: 5,
    nodes: &[1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0, 1.0],
    stages: &[
        &[1.0 / 5.0],
        &[3.0 / 40.0, 9.0 / 40.0],
        &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
        &[19_372.0 / 6561.0, -25_360.0 / 2187.0, 64_448.0 / 6561.0, -212.0 / 729.0],
        &[9017.0 / 3168.0, -355.0 / 33.0, 46_732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18_656.0],
        &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
    ],
    solution: None,
    error: &[
        35.0 / 384.0 - 1951.0 / 21_600.0,
        0.0,
        500.0 / 1113.0 - 22_642.0 / 50_085.0,
        125.0 / 192.0 - 451.0 / 720.0,
        -2187.0 / 6784.0 + 12_231.0 / 42_400.0,
        11.0 / 84.0 - 649.0 / 6300.0,
        -1.0 / 60.0,
    ],
    middle: &[
        6_025_192_743.0 / 30_085_553_152.0 / 2.0,
        0.0,
        51_252_292_925.0 / 65_400_821_598.0 / 2.0,
        -2_691_868_925.0 / 45_128_329_728.0 / 2.0,
        187_940_372_067.0 / 1_594_534_317_056.0 / 2.0,
        -1_776_094_331.0 / 19_743_644_256.0 / 2.0,
        11_237_099.0 / 235_043_384.0 / 2.0,
    ],
};

#[cfg(test)]
mod tests {
    use super::super::dopri8::DOPRI8;
    use super::*;

    fn close(a: f64, b: f64, tolerance: f64, what: &str) {
        assert!((a - b).abs() < tolerance, "{what}: {a} for {b}");
    }

    #[test]
    fn weights_are_consistent() {
        for pair in [&ADAPTIVE_HEUN, &FEHLBERG2, &BOSH3, &DOPRI5, &DOPRI8] {
            let n = pair.order;
            assert_eq!(pair.nodes.len(), pair.stages.len());
            for (i, (node, row)) in pair.nodes.iter().zip(pair.stages).enumerate() {
                assert_eq!(row.len(), i + 1);
                close(row.iter().sum(), *node, 1e-15 * 1e3, &format!("order {n}, stage {i}"));
            }
            let slopes = pair.nodes.len() + 1;
            assert_eq!((pair.error.len(), pair.middle.len()), (slopes, slopes));
            close(pair.error.iter().sum(), 0.0, 1e-14, &format!("order {n}, error"));
            close(pair.middle.iter().sum(), 0.5, 1e-13, &format!("order {n}, middle"));

            let last = pair.stages[pair.stages.len() - 1];
            let solution = pair.solution.unwrap_or(last);
            // Quadrature: sum b c^(k-1) = 1/k up to the order.
            for k in 1..=pair.order {
                let nodes = core::iter::once(&0.0).chain(pair.nodes);
                let sum: f64 = solution.iter().zip(nodes).map(|(b, c)| b * c.powi(k - 1)).sum();
                close(sum, 1.0 / f64::from(k), 1e-14 * 10.0, &format!("order {n}, power {k}"));
            }
        }
    }
}
