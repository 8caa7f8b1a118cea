EXECUTE {name} ({values});
