"""Users, categories and products: the catalogue, which a shop maintains and shows page by page.

Every function works in the caller's transaction and sees what the caller did before. A function that
writes has sent its statement when it returns, so that its error comes from it and not from the commit.

`get_` raises NotFoundError, `list_` returns a page: without the first `skip` rows, or from `after` on, the
key of the last row of the previous page. `skip` reads the rows that it skips; `after` costs the same on every
page. It pays from some 10,000 rows on: of users by id, the page after 10,000 took 2.0 ms by `skip` and 1.6 by
`after`, after 100,000 it took 6.9 and 1.6; of products by price, after 10,000, 5.0 and 1.8 (`python -m
bench.listings`).

Whatever changes a product takes the stock lock first. So does what deletes a row, or changes what is unique
of it (a user's e-mail, a category's name): `db.stock` says why. Workers wait until such a transaction ends,
so end it soon. Deletions and new e-mails come first in a transaction: once it has the stock lock, they raise
LockedError where they would have to wait.
"""

from db.categories import create_category as create_category
from db.categories import delete_category as delete_category
from db.categories import get_category_by_id as get_category_by_id
from db.categories import get_category_by_name as get_category_by_name
from db.categories import get_category_with_products as get_category_with_products
from db.categories import list_categories as list_categories
from db.categories import update_category as update_category
from db.product_order import ProductOrder as ProductOrder
from db.products import adjust_stock as adjust_stock
from db.products import adjust_stock_for_category as adjust_stock_for_category
from db.products import create_product as create_product
from db.products import create_product_in_category as create_product_in_category
from db.products import delete_product as delete_product
from db.products import get_product_by_id as get_product_by_id
from db.products import list_prices as list_prices
from db.products import list_products as list_products
from db.products import list_products_in_category as list_products_in_category
from db.products import update_product as update_product
from db.products import update_product_price as update_product_price
from db.users import create_user as create_user
from db.users import delete_user as delete_user
from db.users import get_user_by_email as get_user_by_email
from db.users import get_user_by_id as get_user_by_id
from db.users import list_user_ids as list_user_ids
from db.users import list_users as list_users
from db.users import update_user as update_user
