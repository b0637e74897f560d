//! Compensated summation: references for f64 results must be better than f64.

/// A sum with its rounding errors carried along (Neumaier 1974).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    total: f64,
    carry: f64,
}

impl Sum {
    /// Adds a term.
    #[inline]
    pub fn add(&mut self, x: f64) {
        let t = self.total + x;
        if t.is_finite() {
            self.carry += if self.total.abs() >= x.abs() { (self.total - t) + x } else { (x - t) + self.total };
        }
        self.total = t;
    }
    /// Adds a·b exactly (two-product by FMA).
    #[inline]
    pub fn add_product(&mut self, a: f64, b: f64) {
        let p = a * b;
        let low = f64::mul_add(a, b, -p);
        self.add(p);
        if low.is_finite() && p.is_finite() {
            self.add(low);
        }
    }
    /// The value.
    #[inline]
    pub fn value(self) -> f64 {
        if self.total.is_finite() { self.total + self.carry } else { self.total }
    }
}

impl FromIterator<f64> for Sum {
    fn from_iter<I: IntoIterator<Item = f64>>(terms: I) -> Sum {
        let mut sum = Sum::default();
        terms.into_iter().for_each(|x| sum.add(x));
        sum
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn cancellation_is_survived() {
        let sum: super::Sum = [1e16, 1.0, -1e16, 1e-3].into_iter().collect();
        assert_eq!(sum.value(), 1.001);
    }
}
