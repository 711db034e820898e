"""How good were the forecasts? Statistics are pure functions of arrays; the backtest folds them."""
