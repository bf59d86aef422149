//! The Pareto front of two measures, both better where smaller.

/// The points that no other dominates, by ascending `x`: `[x, y]` stands where no other point has
/// a `y` at most as great at an `x` at most as great. Of equal points one stands, and none where a
/// value is not finite.
///
/// # Shapes: `points`, result: `[x, y]` each, in any units
pub fn front(mut points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    points.retain(|[x, y]| x.is_finite() && y.is_finite());
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    let mut front: Vec<[f64; 2]> = Vec::new();
    for point in points {
        if front.last().is_none_or(|last| point[1] < last[1]) {
            front.push(point);
        }
    }
    front
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Domain;

    #[test]
    fn the_front_holds_what_no_other_beats() {
        let mut points: Vec<_> =
            [[3.0, 5.0], [1.0, 9.0], [2.0, 9.5], [4.0, 5.0], [1.0, 9.9], [5.0, 1.0]].into();
        points.extend([[0.5, f64::NAN], [f64::NEG_INFINITY, 0.0], [1.0, 9.0]]);
        assert_eq!(front(points), [[1.0, 9.0], [3.0, 5.0], [5.0, 1.0]]);
        assert!(front(Vec::new()).is_empty());
    }

    #[test]
    fn the_front_is_that_of_comparing_all_pairs() {
        let stream = Domain::Analysis.stream(1);
        for set in 0..50 {
            // Few values, so that many points share one.
            let value = |i| f64::from(stream.below(set, i, 8));
            let points: Vec<[f64; 2]> = (0..20).map(|i| [value(2 * i), value(2 * i + 1)]).collect();
            let dominates = |p: &[f64; 2], q: &[f64; 2]| p != q && p[0] <= q[0] && p[1] <= q[1];
            let mut expected = points.clone();
            expected.retain(|q| !points.iter().any(|p| dominates(p, q)));
            expected.sort_by(|a, b| a[0].total_cmp(&b[0]));
            expected.dedup();
            assert_eq!(front(points), expected);
        }
    }
}
