"""A library that turns regular series of request rates into quantile forecasts. It knows no mesh and no clock."""
