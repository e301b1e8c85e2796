"""SAEs themselves: training one where there is none, and what SAEs say of each other."""
