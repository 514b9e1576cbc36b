"""What commands do once their options are checked. These modules load torch and transformers when they are imported."""
