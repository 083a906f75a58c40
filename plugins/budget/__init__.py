"""How much money a caller may spend per day, week or month: reserved beforehand, settled with what it came to."""

from plugins.budget.budget import Budget
from plugins.budget.settings import BudgetConfig

__all__ = ["Budget", "BudgetConfig"]
