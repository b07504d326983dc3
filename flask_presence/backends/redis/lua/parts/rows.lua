-- A member as it is stored: fields with a NUL after each, which is in no id and in no JSON.
local CLIENT, INFO, META, PLACE, NAMED, WROTE, WORKER, SPAN = 1, 2, 3, 4, 5, 6, 7, 8
local ROW = '()(%Z*)%z%Z*%z(%Z*)%z(%Z*)%z(%d+)%z(%d+)%z(%d+)%z(%Z*)%z(%d+)%z()'

-- Adds the rows in a text to some, by client.
local function read_rows(text, rows)
  local at = 1
  for from, client, info, meta, place, named, wrote, worker, span, to in string.gmatch(text, ROW) do
    if from ~= at then
      break
    end
    at = to
    rows[client] = {
      client, info, meta ~= '' and meta, tonumber(place), tonumber(named), tonumber(wrote),
      worker ~= '' and worker, tonumber(span),
    }
  end
  if at ~= #text + 1 or at == 1 then
    error('a row is none')
  end
end

local function row_text(row, user)
  return table.concat({
    row[CLIENT], user or '', row[INFO], row[META] or '', row[PLACE], row[NAMED], row[WROTE],
    row[WORKER] or '', row[SPAN], '',
  }, '\0')
end
