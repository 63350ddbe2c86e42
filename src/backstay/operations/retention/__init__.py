"""Which snapshots stay: rules, holds, and dropping the rest."""
