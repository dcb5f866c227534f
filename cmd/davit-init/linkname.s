// This file lets functions without a body be declared here: they are linked from package runtime.
