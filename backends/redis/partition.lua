-- What the scripts about a partition share; script.go puts it before each of them. KEYS[1] is the
-- partition's watermark, ARGV[1] the generation and ARGV[2] the builder that the caller knows.

-- Says whether the partition was replaced, or is built by somebody else, since the caller looked.
local function moved(gen, by)
  return (gen or '') ~= ARGV[1] or (by or '') ~= ARGV[2]
end

-- Marks the partition as lost, and is the reply that says so.
local function lose(why)
  redis.pcall('HSET', KEYS[1], 'lost', why)
  return {'lost', why}
end

-- The field of a watermark that has the number of rows of a container.
local function rows(watermark, container)
  return '#' .. string.sub(container, #watermark + #ARGV[1])
end

-- Counts the rows of a container of type 'h' or 'z'; a table with err when the server can't.
local function count(container, kind)
  return redis.pcall(kind == 'z' and 'ZCARD' or 'HLEN', container)
end

-- Says why a container with n rows can't be trusted; nil when it has as many as were left in it.
local function wrong(container, n, left)
  if n == tonumber(left or 0) then
    return nil
  end
  return container .. ' has ' .. (type(n) == 'table' and n.err or n) .. ' rows instead of ' .. (left or 0)
end

