-- Refuses what the transcoder would overlook or bend: a misspelt field must not look like success.
--
-- The transcoder drops fields that it does not know, and takes camelCase names, numbers for enum names, texts for numbers,
-- null, the last of several values, JSON with single quotes or trailing commas, and fields in the body of a GET. What
-- passes here is what the OpenAPI document allows; whatever needs more than the shape of a value to judge is left to the service.
--
-- The route says what may come, as the filter's context:
--   body:  { subject: { type: string }, priority: { enum: [low, high] } }   the body is one flat JSON object
--   query: { status: { enum: [open], repeated: true }, page_size: { type: integer } }
-- What is repeated is an array in a body, and a parameter that may come again in a query.
-- Types are string, integer (32 bits), boolean, timestamp, and in a query ascii (what texts there may hold). A test compares the contexts with the protos.
--
-- A refusal is a 400 whose message names every bad field. The violations also go into the dynamic metadata, from where
-- envoy.yaml puts them into the answer's google.rpc.BadRequest.

local MOST_NAMED = 10 -- fields in one message
local LONGEST_NAME = 40 -- of a field, as it is repeated to the caller
local MOST_VALUES = 200 -- in a body, nested ones too; no call has so many fields, and each costs time to look at
local DEEPEST = 16 -- nesting; no field is nested at all, but values of unknown fields are read over

local MISTYPED = {
  string = "must be a string",
  integer = "must be an integer of 32 bits, written in digits",
  boolean = "must be true or false",
  ascii = "must be printable ASCII, percent-encoded where needed",
  timestamp = "must be a time like 2026-01-31T12:00:00Z",
}

local byte, find, sub = string.byte, string.find, string.sub

-- What a caller wrote, harmless in a message and in a log: short, and of letters, digits, dots, hyphens and underscores.
local function harmless(name)
  local short = #name > LONGEST_NAME and sub(name, 1, LONGEST_NAME) .. "..." or name
  return name == "" and "(empty name)" or (string.gsub(short, "[^%w_.%-]", "?"))
end

local function sorted_names(fields)
  local names = {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- What a value should have been; `in_array` where the values of a repeated field are written as one.
local function mistyped(rule, in_array)
  local one = rule.enum and "must be one of " .. table.concat(rule.enum, ", ") or MISTYPED[rule.type]
  return in_array and rule.repeated and "must be an array, and each value in it " .. one or one
end

local function is_int32(digits)
  if not find(digits, "^%-?%d+$") or find(digits, "^%-?0%d") or #digits > 11 then return false end
  local number = tonumber(digits)
  return number >= -2147483648 and number <= 2147483647
end

local function contains(list, wanted)
  for _, item in ipairs(list) do
    if item == wanted then return true end
  end
  return false
end

-- --- violations: at most one for each field, and so many that the message stays readable ---

local Violations = {}
Violations.__index = Violations

local function new_violations()
  return setmetatable({ list = {}, named = {}, more = 0 }, Violations)
end

function Violations:add(field, description)
  field = harmless(field)
  if self.named[field] then return end
  if #self.list == MOST_NAMED then
    self.more = self.more + 1
    return
  end
  self.named[field] = true
  self.list[#self.list + 1] = { field = field, description = description }
end

function Violations:message(fields)
  local parts = {}
  for _, violation in ipairs(self.list) do parts[#parts + 1] = violation.field .. ": " .. violation.description end
  local text = table.concat(parts, "; ")
  if self.more > 0 then text = text .. "; and " .. self.more .. " more" end
  local names = sorted_names(fields)
  return text .. "; allowed are: " .. (#names > 0 and table.concat(names, ", ") or "none")
end

-- --- JSON, as RFC 8259 has it and no laxer ---
-- Readers take the text and the position of a value's first byte, and return the position behind it. What is not JSON is
-- thrown as a table that says where.

local function not_json(position)
  error({ position = position }, 0)
end

-- The loops over bytes look clumsier than patterns would, but they are compiled, and patterns are not: ten times as fast.
local BLANK = { [0x20] = true, [0x09] = true, [0x0A] = true, [0x0D] = true }

local function after_blanks(text, position)
  while BLANK[byte(text, position)] do position = position + 1 end
  return position
end

-- The bytes of UTF-8 sequences by first byte (RFC 3629): how many more, and the range of the second.
local function utf8_tail(first)
  if first < 0xC2 or first > 0xF4 then return nil end
  if first < 0xE0 then return 1, 0x80, 0xBF end
  if first < 0xF0 then return 2, first == 0xE0 and 0xA0 or 0x80, first == 0xED and 0x9F or 0xBF end
  return 3, first == 0xF0 and 0x90 or 0x80, first == 0xF4 and 0x8F or 0xBF
end

local function after_character(text, position)
  local more, lowest, highest = utf8_tail(byte(text, position))
  local second = more and byte(text, position + 1)
  if not second or second < lowest or second > highest then not_json(position) end
  for i = 2, more do
    local next_byte = byte(text, position + i)
    if not next_byte or next_byte < 0x80 or next_byte > 0xBF then not_json(position) end
  end
  return position + more + 1
end

local function hex_digit(character)
  if not character then return nil end
  if character >= 0x30 and character <= 0x39 then return character - 0x30 end
  if character >= 0x41 and character <= 0x46 then return character - 0x37 end
  return character >= 0x61 and character <= 0x66 and character - 0x57 or nil
end

local function code_unit(text, position)
  local backslash, u = byte(text, position, position + 1)
  local unit = 0
  for i = position + 2, position + 5 do
    local digit = hex_digit(byte(text, i))
    if backslash ~= 0x5C or u ~= 0x75 or not digit then not_json(position) end
    unit = unit * 16 + digit
  end
  return unit
end

local ESCAPED = { [0x22] = true, [0x5C] = true, [0x2F] = true, [0x62] = true, [0x66] = true, [0x6E] = true, [0x72] = true, [0x74] = true }

-- Behind \n, \u0041 or a pair of surrogates; half a pair is no character, and so no JSON text.
local function after_escape(text, position)
  if ESCAPED[byte(text, position + 1)] then return position + 2 end
  local unit = code_unit(text, position)
  if unit < 0xD800 or unit > 0xDFFF then return position + 6 end
  local low = unit < 0xDC00 and code_unit(text, position + 6) or 0
  if low < 0xDC00 or low > 0xDFFF then not_json(position) end
  return position + 12
end

local function after_string(text, start)
  local position = start + 1
  while true do
    local here = byte(text, position)
    if not here or here < 0x20 then not_json(position) end
    if here == 0x22 then return position + 1 end
    if here == 0x5C then
      position = after_escape(text, position)
    elseif here < 0x80 then
      position = position + 1
    else
      position = after_character(text, position)
    end
  end
end

local SIMPLE = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

-- What a string that has been read stands for. Beyond ASCII an escape becomes a question mark: no name that is allowed and
-- no value of an enum has such characters, and nothing else is looked at.
local function decoded(text, start, stop)
  -- Cut where it is longer than every name anyway, each character being an escape.
  local raw = sub(text, start + 1, math.min(stop - 2, start + 6 * (LONGEST_NAME + 1)))
  if not find(raw, "\\", 1, true) then return raw end
  raw = string.gsub(raw, "\\(u?)(.)(%x?%x?%x?)", function(unicode, first, rest)
    if unicode == "" then return (SIMPLE[first] or first) .. rest end
    local unit = tonumber(first .. rest, 16)
    return unit < 128 and string.char(unit) or "?"
  end)
  return raw
end

local function after_number(text, start)
  local _, last = find(text, "^%-?%d+", start)
  if not last or find(text, "^%-?0%d", start) then not_json(start) end
  if sub(text, last + 1, last + 1) == "." then
    last = select(2, find(text, "^%.%d+", last + 1)) or not_json(last + 1)
  end
  if find(text, "^[eE]", last + 1) then
    last = select(2, find(text, "^[eE][+-]?%d+", last + 1)) or not_json(last + 1)
  end
  return last + 1
end

local after_value

-- How many more values may come; a body is read without interruption, so one count will do.
local values_left = 0

local function count_value()
  if values_left == 0 then error({ too_many = true }, 0) end
  values_left = values_left - 1
end

-- Behind an object or array whose members `after_member` reads, separated by commas.
local function after_members(text, start, closing, after_member)
  local position = after_blanks(text, start + 1)
  if byte(text, position) == closing then return position + 1 end
  while true do
    count_value()
    position = after_blanks(text, after_member(position))
    local separator = byte(text, position)
    if separator == closing then return position + 1 end
    if separator ~= 0x2C then not_json(position) end
    position = after_blanks(text, position + 1)
  end
end

-- Reads the value of each member by `after_member`, which is told where the name is too, or else by `after_value`.
local function after_object(text, start, depth, after_member)
  return after_members(text, start, 0x7D, function(name_start)
    if byte(text, name_start) ~= 0x22 then not_json(name_start) end
    local name_stop = after_string(text, name_start)
    local colon = after_blanks(text, name_stop)
    if byte(text, colon) ~= 0x3A then not_json(colon) end
    local value_start = after_blanks(text, colon + 1)
    if after_member then return after_member(value_start, depth, name_start, name_stop) end
    return after_value(text, value_start, depth)
  end)
end

local function after_array(text, start, depth)
  return after_members(text, start, 0x5D, function(position) return after_value(text, position, depth) end)
end

local WORDS = { [0x74] = "true", [0x66] = "false", [0x6E] = "null" }

after_value = function(text, position, depth)
  local first = byte(text, position)
  if first == 0x22 then return after_string(text, position) end
  if first == 0x7B or first == 0x5B then
    if depth == DEEPEST then not_json(position) end
    return (first == 0x7B and after_object or after_array)(text, position, depth + 1)
  end
  local word = WORDS[first]
  if not word then return after_number(text, position) end
  if sub(text, position, position + #word - 1) ~= word then not_json(position) end
  return position + #word
end

-- By its shape (RFC 3339); that there is no 31st of June is left to the transcoder.
local function is_timestamp(text)
  local rest = string.match(text, "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d(.*)$") or ""
  local zone = string.gsub(rest, "^%.%d+", "")
  return zone == "Z" or find(zone, "^[+-]%d%d:%d%d$") ~= nil
end

local function json_fits(rule, text, start, stop)
  local first = byte(text, start)
  if rule.enum then return first == 0x22 and contains(rule.enum, decoded(text, start, stop)) end
  if rule.type == "string" then return first == 0x22 end
  if rule.type == "timestamp" then return first == 0x22 and is_timestamp(decoded(text, start, stop)) end
  if rule.type == "boolean" then return first == 0x74 or first == 0x66 end
  return is_int32(sub(text, start, math.min(stop - 1, start + 12)))
end

-- Behind the value, and whether it fits.
local function after_checked(rule, text, start, depth)
  if not (rule and rule.repeated) then
    local stop = after_value(text, start, depth)
    return stop, rule and json_fits(rule, text, start, stop)
  end
  if byte(text, start) ~= 0x5B then return after_value(text, start, depth), false end
  local all_fit = true
  local stop = after_members(text, start, 0x5D, function(position)
    local behind = after_value(text, position, depth + 1)
    all_fit = all_fit and json_fits(rule, text, position, behind)
    return behind
  end)
  return stop, all_fit
end

local function check_member(name, rule, fits, violations, seen, in_body)
  if not rule then
    violations:add(name, "is no field of this call")
  elseif seen[name] then
    violations:add(name, "must not be repeated")
  elseif not fits then
    violations:add(name, mistyped(rule, in_body))
  end
  if rule then seen[name] = true end
end

local function check_body(text, fields, violations)
  local start = after_blanks(text, 1)
  if byte(text, start) ~= 0x7B then not_json(start) end
  local seen = {}
  values_left = MOST_VALUES
  local stop = after_object(text, start, 1, function(value_start, depth, name_start, name_stop)
    local name = decoded(text, name_start, name_stop)
    local rule = fields[name]
    local behind, fits = after_checked(rule, text, value_start, depth)
    check_member(name, rule, fits, violations, seen, true)
    return behind
  end)
  local rest = after_blanks(text, stop)
  if rest <= #text then not_json(rest) end
end

local function violations_of_body(text, fields)
  local violations = new_violations()
  local went_well, trouble = pcall(check_body, text, fields, violations)
  if went_well then return violations end
  if type(trouble) ~= "table" then error(trouble, 0) end
  if trouble.too_many then
    violations:add("body", "must not hold more than " .. MOST_VALUES .. " values")
    return violations
  end
  local shape = new_violations()
  shape:add("body", "must be one JSON object, and is none from byte " .. trouble.position .. " on")
  return shape
end

-- --- queries ---

local function unescaped(text)
  return (string.gsub(text, "%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function query_fits(rule, text)
  if rule.enum then return contains(rule.enum, text) end
  if rule.type == "integer" then return is_int32(text) end
  if rule.type == "boolean" then return text == "true" or text == "false" end
  -- No token or id needs more, and the service could not read bytes that are not UTF-8.
  if rule.type == "ascii" then return find(text, "^[ -~]*$") ~= nil end
  return is_timestamp(text)
end

local function violations_of_query(path, parameters)
  local violations, seen = new_violations(), {}
  local query = string.match(path, "%?(.*)") or ""
  for parameter in string.gmatch(query, "[^&]+") do
    local name, value = string.match(parameter, "^([^=]*)=(.*)$")
    local rule = parameters[name or parameter]
    -- The transcoder overlooks a parameter without "=".
    local fits = rule and value and query_fits(rule, unescaped(value))
    check_member(name or parameter, rule, fits, violations, rule and rule.repeated and {} or seen)
  end
  return violations
end

-- --- the filter ---

-- What to answer, and the violations; nothing where there are none.
local function refusal(request)
  local context = request:filterContext()
  local fields, parameters = context:get("body"), context:get("query")
  local violations
  local body = request:body()
  if parameters then
    violations = violations_of_query(request:headers():get(":path"), parameters)
    -- The transcoder takes fields from it all the same, whatever its content-type says.
    if body and body:length() > 0 then violations:add("body", "must be empty; fields belong in the query") end
  else
    violations = violations_of_body(body and body:getBytes(0, body:length()) or "", fields)
  end
  if #violations.list > 0 then return violations:message(fields or parameters), violations.list end
end

function envoy_on_request(request)
  local went_well, message, list = pcall(refusal, request)
  if not went_well then
    -- Said here, since an error that leaves this function lets the request pass.
    request:logErr("strict_fields.lua: " .. tostring(message))
    message, list = "request: could not be read", { { field = "request", description = "could not be read" } }
  end
  if message then
    request:streamInfo():dynamicMetadata():set("nibble.strict_fields", "violations", list)
    request:respond({ [":status"] = "400" }, message)
  end
end
