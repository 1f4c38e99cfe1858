-- Widgets to try things with, on the local stack and after `supabase db reset`; never part of a hosted project.

insert into auth.users (id, email) values
  ('0de00000-0000-7000-8000-000000000001', 'owner@bakery.example'),
  ('0de00000-0000-7000-8000-000000000002', 'owner@clinic.example')
on conflict do nothing;

insert into public.widgets (id, owner_id, name, allowed_domains, is_demo) values
  ('11111111-1111-7111-8111-111111111111', '0de00000-0000-7000-8000-000000000001', 'Bakery voice',
    '{bakery.example,*.bakery.example}', false),
  ('22222222-2222-7222-8222-222222222222', '0de00000-0000-7000-8000-000000000001', 'Bakery chat',
    '{shop.bakery.example}', false),
  ('33333333-3333-7333-8333-333333333333', '0de00000-0000-7000-8000-000000000002', 'Clinic voice',
    '{clinic.example}', false),
  ('44444444-4444-7444-8444-444444444444', null, 'Playground', '{*}', false),
  ('55555555-5555-7555-8555-555555555555', null, 'Sales demo', '{*}', true)
on conflict do nothing;
