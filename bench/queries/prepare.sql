PREPARE {name} AS {statement};
