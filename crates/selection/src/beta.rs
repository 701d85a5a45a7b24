//! Draws from beta distributions.

use rand::Rng;

/// A draw from the standard normal distribution (Box and Muller).
pub fn normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// A draw from a gamma distribution of this shape, at least 1, and scale 1 (Marsaglia and Tsang
/// 2000).
fn gamma(rng: &mut impl Rng, shape: f64) -> f64 {
    let mode = shape - 1.0 / 3.0;
    let spread = 1.0 / (9.0 * mode).sqrt();
    loop {
        let deviate = normal(rng);
        let cube = (1.0 + spread * deviate).powi(3);
        if cube <= 0.0 {
            continue;
        }
        let log_uniform = (1.0 - rng.random::<f64>()).ln();
        if log_uniform < 0.5 * deviate * deviate + mode - mode * cube + mode * cube.ln() {
            return mode * cube;
        }
    }
}

/// A draw from the beta distribution; both parameters are at least 1.
pub fn draw(rng: &mut impl Rng, a: f64, b: f64) -> f64 {
    let (x, y) = (gamma(rng, a.max(1.0)), gamma(rng, b.max(1.0)));
    x / (x + y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::rng;

    #[test]
    fn draws_have_the_mean_and_the_variance_of_the_distribution() {
        for (a, b) in [(1.0, 1.0), (2.0, 5.0), (30.0, 3.5)] {
            let draws: Vec<f64> = (0..20_000).map(|seed| draw(&mut rng(seed), a, b)).collect();
            let n = draws.len() as f64;
            let mean = draws.iter().sum::<f64>() / n;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let sum = a + b;
            assert!((mean - a / sum).abs() < 0.01, "{a} {b}: mean {mean}");
            let expected: f64 = a * b / (sum * sum * (sum + 1.0));
            assert!((variance / expected - 1.0).abs() < 0.06, "{a} {b}: variance {variance}");
        }
    }
}
